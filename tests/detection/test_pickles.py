"""Detectron2's weights are recognised without running what strangers put into them."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common.errors import UserError
from detection import convert
from detection.pickles import read_architecture
from tests.common.test_checkpoints import Malicious
from tests.detection.helpers import shape_state


def converted(folder: Path, architecture: str) -> dict[str, Any]:
    torch.save(shape_state(architecture), folder / "in.pth")
    convert.convert(folder / "in.pth", folder / "weights.pkl")
    with (folder / "weights.pkl").open("rb") as file:
        content: dict[str, Any] = pickle.load(file)
    return content


def written(folder: Path, content: object) -> Path:
    (folder / "weights.pkl").write_bytes(pickle.dumps(content, protocol=2))
    return folder / "weights.pkl"


@pytest.mark.parametrize("architecture", ["resnet18", "resnet50"])
def test_converted_weights_are_recognised(tmp_path: Path, architecture: str) -> None:
    converted(tmp_path, architecture)
    assert read_architecture(tmp_path / "weights.pkl") == architecture


def test_tensors_may_not_be_missing_but_counters_may(tmp_path: Path) -> None:
    content = converted(tmp_path, "resnet18")
    model = {k: v for k, v in content["model"].items() if "num_batches" not in k}
    assert read_architecture(written(tmp_path, content | {"model": model})) == "resnet18"
    del model["res3.0.conv1.norm.running_var"]
    with pytest.raises(UserError, match=r"weights\.pkl is not a whole ResNet"):
        read_architecture(written(tmp_path, content | {"model": model}))


def test_weights_of_others_are_left_to_detectron2(tmp_path: Path) -> None:
    arrays = {"conv1_w": np.zeros((64, 3, 7, 7), np.float32), "scalar": np.float64(1)}
    assert read_architecture(written(tmp_path, arrays)) == ""
    model = {"model": arrays, "__author__": "Caffe2", "matching_heuristics": True}
    assert read_architecture(written(tmp_path, model)) == ""


def test_code_in_weights_is_not_run(tmp_path: Path) -> None:
    path = written(tmp_path, {"model": Malicious(tmp_path / "made"), "__author__": "stranger"})
    with pytest.raises(UserError, match=r"weights\.pkl is not readable .*mkdir is not allowed"):
        read_architecture(path)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_weights_cut_short_are_named(tmp_path: Path, share: float) -> None:
    converted(tmp_path, "resnet18")
    data = (tmp_path / "weights.pkl").read_bytes()
    (tmp_path / "weights.pkl").write_bytes(data[: int(share * len(data))])
    with pytest.raises(UserError, match=r"weights\.pkl is not readable as Detectron2 weights"):
        read_architecture(tmp_path / "weights.pkl")


@pytest.mark.parametrize("content", [{}, [1, 2], "words"])
def test_what_holds_no_weights_is_named(tmp_path: Path, content: object) -> None:
    with pytest.raises(UserError, match=r"weights\.pkl holds no Detectron2 weights"):
        read_architecture(written(tmp_path, content))
