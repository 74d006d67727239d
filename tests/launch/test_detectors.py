"""Which detectors ``--eval-only`` takes, what it knows of them, and what it refuses."""

import contextlib
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import demo
from common.errors import UserError
from detection.config import read, resolve
from launch import transfer
from launch.detectors import find_detector
from launch.options import Resources, RunOptions
from tests.common.writers import Malicious
from tests.launch.test_weights import DEMO_CONFIG, config_of


def detector(folder: Path, **more: Any) -> Path:
    """A file such as Detectron2 leaves of a training."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model_final.pth"
    torch.save({"model": {"backbone.w": torch.zeros(2)}, "iteration": 3, **more}, path)
    return path


def run_folder(folder: Path, *overrides: str) -> Path:
    """The detector of a finished run."""
    path = detector(folder, trainer={"optimizer": {"state": {0: {"momentum": torch.zeros(2)}}}})
    cfg = resolve(read(DEMO_CONFIG), overrides=overrides).detectron2()
    (folder / "config.yaml").write_text(cfg.dump())
    metrics = {"method": "LEWEL_B", "norm": "eman", "pretrain_epochs": 200, "box_AP": 1.0}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return path


def test_an_evaluation_has_no_batch_to_divide(
    tmp_path: Path, demo_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run_folder(tmp_path)
    three = Resources("local", gpus_per_node=0, tasks_per_node=3)
    command = transfer.Command(
        config=(Path(DEMO_CONFIG),),
        weights=(str(path),),
        eval_only=True,
        run=RunOptions(output_dir=tmp_path),
        resources=three,
    )
    assert len(transfer.plan(command)) == 1
    assert capsys.readouterr().out.startswith(f"demo_R_18_FPN: evaluation of {path}\n")


def test_the_run_beside_a_detector_tells_its_origin(tmp_path: Path) -> None:
    path = run_folder(tmp_path)
    source = find_detector(str(path), None)
    weights = source.weights
    assert (weights.method, weights.norm, weights.epochs) == ("LEWEL_B", "eman", 200)
    assert source.line.count("\n") == 0
    assert find_detector(str(path), "mine").weights.method == "mine"


@pytest.mark.parametrize(
    ("metrics", "config"),
    [
        ('{"iteration": 1}\n{"iteration": 2}\n', None),  # Detectron2's file has this name too
        ('{"loss": 1}', "INPUT: ["),
        ("[]", "MODEL: 3\n"),
        ("", "INPUT:\n  FORMAT: RGB\n"),
    ],
)
def test_of_a_detector_alone_nothing_is_known(
    tmp_path: Path, metrics: str, config: str | None
) -> None:
    path = detector(tmp_path)
    (tmp_path / "metrics.json").write_text(metrics)
    if config is not None:
        (tmp_path / "config.yaml").write_text(config)
    source = find_detector(str(path), None)
    weights = source.weights
    assert (weights.method, weights.norm, weights.epochs) == ("", "", None)
    assert "\nwarning: no config.yaml beside " in source.line
    source.check_fits(config_of(weights))


def test_a_config_that_reads_images_otherwise_is_refused(tmp_path: Path) -> None:
    source = find_detector(str(run_folder(tmp_path)), None)
    source.check_fits(config_of(source.weights))
    yaml = tmp_path / "config.yaml"
    for key, value in (
        ("INPUT.FORMAT", "BGR"),
        ("MODEL.PIXEL_MEAN", "[103.53,116.28,123.675]"),
        ("MODEL.PIXEL_STD", "[1.0,1.0,1.0]"),
        ("MODEL.RESNETS.STRIDE_IN_1X1", "True"),
    ):
        wrong = config_of(source.weights, key, value)
        with pytest.raises(UserError, match=rf"^{key} is .* \(trained with {yaml}\) need"):
            source.check_fits(wrong)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (demo.CLASSES, None),
        (None, None),  # of a run from before, or of Detectron2's own tools
        (demo.CLASSES[::-1], r"trained for, or in another order; evaluate on one that has them"),
        (("dots", "cell"), r"demo_coco_val has other .* or in another order, such as bricks, cell"),
    ],
)
def test_a_data_set_of_other_classes_is_refused(
    tmp_path: Path, classes: tuple[str, ...] | None, message: str | None
) -> None:
    path = run_folder(tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    (tmp_path / "metrics.json").write_text(json.dumps(metrics | {"classes": classes}))
    source = find_detector(str(path), None)
    cfg = config_of(source.weights)
    expected = pytest.raises(UserError, match=message) if message else contextlib.nullcontext()
    with expected:
        source.check_fits(cfg)


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("name", ["evil.pkl", ".pkl", "evil.pth"])
def test_code_in_a_detector_is_not_run(tmp_path: Path, name: str, protocol: int) -> None:
    evil = {"model": Malicious(tmp_path / "made"), "__author__": "stranger"}
    (tmp_path / name).write_bytes(pickle.dumps(evil, protocol))
    with pytest.raises(UserError, match=r"mkdir is not allowed|is a plain pickle"):
        find_detector(str(tmp_path / name), None)
    torch.save(evil, tmp_path / "saved")
    (tmp_path / "saved").rename(tmp_path / name)
    with pytest.raises(UserError, match=r"more than tensors|not in Detectron2's format"):
        find_detector(str(tmp_path / name), None)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_a_detector_cut_short_is_one_sentence(tmp_path: Path, zipped: bool) -> None:
    torch.save(
        {"model": {"w": torch.zeros(999)}}, tmp_path / "d.pth",
        _use_new_zipfile_serialization=zipped,
    )  # fmt: skip
    data = (tmp_path / "d.pth").read_bytes()
    (tmp_path / "d.pth").write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match=r"d\.pth is not a readable PyTorch checkpoint .*truncated"):
        find_detector(str(tmp_path / "d.pth"), None)


def test_a_detector_that_detectron2_does_not_load_is_refused(tmp_path: Path) -> None:
    save_file({"backbone.w": torch.zeros(2)}, tmp_path / "model.safetensors")
    detector(tmp_path).rename(tmp_path / "model.pyth")
    for name in ("model.safetensors", "model.pyth"):
        with pytest.raises(UserError, match=rf"{name} is of a kind that .* ends in \.pth\.$"):
            find_detector(str(tmp_path / name), None)


def test_a_detector_of_the_wrong_name_is_told_what_to_do(tmp_path: Path) -> None:
    model = {"model": {"w": np.zeros(2)}, "__author__": "zoo"}
    (tmp_path / "zoo.pkl").write_bytes(pickle.dumps(model))
    assert find_detector(str(tmp_path / "zoo.pkl"), None).weights.path.endswith("zoo.pkl")
    (tmp_path / "zoo.pkl").rename(tmp_path / "zoo.pth")
    with pytest.raises(UserError, match=r"zoo\.pth is a plain pickle.*ends in \.pkl"):
        find_detector(str(tmp_path / "zoo.pth"), None)
    detector(tmp_path).rename(tmp_path / "ours.pkl")
    with pytest.raises(UserError, match=r"ours\.pkl is not in Detectron2's format.*ends in \.pth"):
        find_detector(str(tmp_path / "ours.pkl"), None)
