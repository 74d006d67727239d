"""Detectron2's weights are recognised without running what strangers put into them."""

import itertools
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from common.checkpoints import is_pickle
from common.errors import UserError
from detection import convert
from detection.convert import Pickled, read_weights
from tests.common.writers import Malicious
from tests.detection.helpers import (
    LEWEL_PREFIX,
    caffe2_name,
    save_lewel,
    shape_state,
    torchvision_name,
)


def converted(folder: Path, architecture: str) -> dict[str, Any]:
    torch.save(shape_state(architecture), folder / "in.pth")
    convert.convert(folder / "in.pth", folder / "weights.pkl")
    with (folder / "weights.pkl").open("rb") as file:
        content: dict[str, Any] = pickle.load(file)
    return content


def written(folder: Path, content: object) -> Path:
    (folder / "weights.pkl").write_bytes(pickle.dumps(content, protocol=2))
    return folder / "weights.pkl"


def test_converted_weights_tell_their_origin(tmp_path: Path) -> None:
    save_lewel(tmp_path / "in.pth.tar", shape_state("resnet18"), LEWEL_PREFIX)
    convert.convert(tmp_path / "in.pth.tar", tmp_path / "weights.pkl")
    expected = Pickled("lewel-transfer", "resnet18", "LEWEL_B", "eman", 200, "online")
    assert read_weights(tmp_path / "weights.pkl") == expected
    # As they were before they told it.
    content = pickle.loads((tmp_path / "weights.pkl").read_bytes())
    plain = {k: content[k] for k in ("model", "__author__", "matching_heuristics")}
    assert read_weights(written(tmp_path, plain)) == Pickled("lewel-transfer", "resnet18")


def test_tensors_may_not_be_missing_but_counters_may(tmp_path: Path) -> None:
    content = converted(tmp_path, "resnet18")
    model = {k: v for k, v in content["model"].items() if "num_batches" not in k}
    assert read_weights(written(tmp_path, content | {"model": model})).architecture == "resnet18"
    del model["res3.0.conv1.norm.running_var"]
    with pytest.raises(UserError, match=r"weights\.pkl is not a whole ResNet"):
        read_weights(written(tmp_path, content | {"model": model}))


def test_weights_of_others_are_left_to_detectron2(tmp_path: Path) -> None:
    arrays = {"conv1_w": np.zeros((64, 3, 7, 7), np.float32)}
    unsigned = Pickled("Caffe2", "", signed=False)
    assert read_weights(written(tmp_path, arrays)) == unsigned
    assert read_weights(written(tmp_path, {"blobs": arrays, "cfg": ""})) == unsigned
    model = {"model": arrays, "__author__": "MOCO", "epoch": np.float64(1)}
    assert read_weights(written(tmp_path, model)) == Pickled("MOCO", "")


@pytest.mark.parametrize("architecture", ["resnet18", "resnet50"])
def test_the_resnets_of_others_are_recognised(tmp_path: Path, architecture: str) -> None:
    state = {k: np.broadcast_to(0.0, tuple(v.shape)) for k, v in shape_state(architecture).items()}
    caffe2 = {caffe2_name(k): v for k, v in state.items() if not k.endswith("tracked")}
    caffe2 |= {"fc1000_w": np.zeros((2, 2)), "conv1_b": np.zeros(64)}
    msra = Pickled("Caffe2", architecture, signed=False)
    assert read_weights(written(tmp_path, caffe2)) == msra
    torchvision = {torchvision_name(k): v for k, v in state.items()}
    torchvision["stem.fc.weight"] = np.zeros((2, 2))
    content = {"model": torchvision, "__author__": "torchvision", "matching_heuristics": True}
    assert read_weights(written(tmp_path, content)) == Pickled("torchvision", architecture)
    # Detectron2 takes who names no author for Caffe2, but these names are not Caffe2's.
    assert read_weights(written(tmp_path, torchvision)) == Pickled("Caffe2", "", signed=False)
    names = {k: v for k, v in caffe2.items() if "running" not in k}  # nor is GroupNorm MSRA's
    norms = {k.replace("_bn_gamma", "_gn_s"): v for k, v in names.items()}
    assert read_weights(written(tmp_path, norms)) == Pickled("Caffe2", "", signed=False)


def test_pickles_and_checkpoints_are_told_apart_by_what_they_hold(tmp_path: Path) -> None:
    state = {"w": torch.zeros(2)}
    torch.save(state, tmp_path / "zip.pkl")
    torch.save(state, tmp_path / "legacy.pkl", _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / "safe.pkl")
    (tmp_path / "empty.pkl").write_bytes(b"")
    assert not any(is_pickle(path) for path in tmp_path.iterdir())
    for protocol, content in itertools.product((0, 1, 2, 5), ({"a": 1}, OrderedDict(a=1))):
        (tmp_path / "plain.pth").write_bytes(pickle.dumps(content, protocol))
        assert is_pickle(tmp_path / "plain.pth")


def test_a_model_without_an_author_is_refused_by_that_name(tmp_path: Path) -> None:
    """Detectron2 would look for weights beside ``model``, and find none."""
    content = converted(tmp_path, "resnet18")
    del content["__author__"]
    with pytest.raises(UserError, match=r"weights\.pkl has a model but no __author__.*; name one"):
        read_weights(written(tmp_path, content))


def test_code_in_weights_is_not_run(tmp_path: Path) -> None:
    path = written(tmp_path, {"model": Malicious(tmp_path / "made"), "__author__": "stranger"})
    with pytest.raises(UserError, match=r"weights\.pkl is not readable .*mkdir is not allowed"):
        read_weights(path)
    assert not (tmp_path / "made").exists()


def test_weights_cut_short_are_named(tmp_path: Path) -> None:
    converted(tmp_path, "resnet18")
    data = (tmp_path / "weights.pkl").read_bytes()
    for share in (0.0, 0.5, 0.99):
        (tmp_path / "weights.pkl").write_bytes(data[: int(share * len(data))])
        with pytest.raises(UserError, match=r"weights\.pkl is not readable as Detectron2 weights"):
            read_weights(tmp_path / "weights.pkl")


@pytest.mark.parametrize("content", [{}, [1, 2], "words", {"model": {"a": 1}, "__author__": "b"}])
def test_what_holds_no_weights_is_named(tmp_path: Path, content: object) -> None:
    with pytest.raises(UserError, match=r"weights\.pkl holds no Detectron2 weights"):
        read_weights(written(tmp_path, content))
