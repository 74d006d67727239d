"""Which weights a transfer starts from, and which it refuses."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from common import runs
from common.errors import UserError
from common.files import sha256
from detection.config import TransferConfig
from launch.weights import find_weights
from pretrain.lewel import LEWEL

CONFIGS = Path(__file__).resolve().parent.parent.parent / "det_configs"
DEMO_CONFIG = str(CONFIGS / "demo_R_18_FPN.yaml")


def checkpoint(path: Path, backbone: str = "resnet18", **more: Any) -> Path:
    model = LEWEL(backbone, proj_dim=8, hidden_dim=8)
    state = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"arch": "LEWELB_EMAN", "epoch": 200, "state_dict": state, **more}, path)
    return path


def pretraining(output_dir: Path, name: str, age: int, **metrics: Any) -> Path:
    """A finished pre-training run that ended ``age`` seconds ago."""
    folder = output_dir / "runs" / "pretrain" / name
    path = checkpoint(folder / "checkpoint.pth.tar", run=name)
    known = {"backbone": "resnet18", "demo": False, "checkpoint": path.name}
    runs.finish(folder, known | metrics)
    stat = (folder / "metrics.json").stat()
    os.utime(folder / "metrics.json", (stat.st_atime, stat.st_mtime - age))
    return path


def test_the_default_is_the_newest_finished_run_of_the_same_depth(tmp_path: Path) -> None:
    pretraining(tmp_path, "old", 30)
    newest = pretraining(tmp_path, "new", 20)
    pretraining(tmp_path, "deeper", 10, backbone="resnet50")
    pretraining(tmp_path, "drawn", 5, demo=True)
    (tmp_path / "runs" / "pretrain" / "unfinished").mkdir()
    source = find_weights(None, DEMO_CONFIG, None, tmp_path)
    assert source.weights.sha256 == sha256(newest)
    assert str(newest) in source.description
    assert (source.weights.method, source.weights.norm) == ("LEWEL_B", "eman")
    assert source.weights.epochs == 200


def test_the_default_is_only_for_the_placeholder(tmp_path: Path) -> None:
    pretraining(tmp_path, "new", 0)
    config = tmp_path / "rand.yaml"
    config.write_text(f'_BASE_: "{DEMO_CONFIG}"\nMODEL:\n  WEIGHTS: ""\n')
    assert find_weights(None, str(config), None, tmp_path).weights.path == ""
    config.write_text(f'_BASE_: "{DEMO_CONFIG}"\nMODEL:\n  WEIGHTS: "gone.pkl"\n')
    with pytest.raises(UserError, match=r"gone\.pkl"):
        find_weights(None, str(config), None, tmp_path)


def test_none_is_a_random_start_and_a_label_is_kept(tmp_path: Path) -> None:
    assert find_weights("none", DEMO_CONFIG, None, tmp_path).weights.method == "random"
    path = checkpoint(tmp_path / "c.pth.tar")
    assert find_weights(str(path), DEMO_CONFIG, "ours", tmp_path).weights.method == "ours"


def test_a_bare_backbone_needs_a_label(tmp_path: Path) -> None:
    state = LEWEL("resnet18", proj_dim=8, hidden_dim=8).online_net.backbone.state_dict()
    torch.save(state, tmp_path / "bare.pth")
    with pytest.raises(UserError, match="add --label METHOD"):
        find_weights(str(tmp_path / "bare.pth"), DEMO_CONFIG, None, tmp_path)
    source = find_weights(str(tmp_path / "bare.pth"), DEMO_CONFIG, "BYOL", tmp_path)
    assert source.weights.method == "BYOL"


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (("INPUT.FORMAT", "BGR"), "INPUT.FORMAT"),
        (("MODEL.RESNETS.DEPTH", "50"), "MODEL.RESNETS.DEPTH"),
        (("MODEL.RESNETS.STRIDE_IN_1X1", "True"), "STRIDE_IN_1X1"),
        (("MODEL.PIXEL_MEAN", "[103.53,116.28,123.675]"), "MODEL.PIXEL_MEAN"),
        (("MODEL.PIXEL_STD", "[1.0,1.0,1.0]"), "MODEL.PIXEL_STD"),
        (("MODEL.RESNETS.NORM", "GN"), "MODEL.RESNETS.NORM is 'GN'"),
    ],
)
def test_a_config_that_treats_the_weights_otherwise_is_refused(
    tmp_path: Path, overrides: tuple[str, ...], key: str
) -> None:
    source = find_weights(str(checkpoint(tmp_path / "c.pth.tar")), DEMO_CONFIG, None, tmp_path)
    source.check_fits(TransferConfig(DEMO_CONFIG, source.weights).detectron2())
    wrong = TransferConfig(DEMO_CONFIG, source.weights, overrides=overrides).detectron2()
    with pytest.raises(UserError, match=key):
        source.check_fits(wrong)


def test_finding_writes_nothing_and_write_writes_once(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "c.pth.tar")
    source = find_weights(str(path), DEMO_CONFIG, None, tmp_path)
    assert os.listdir(tmp_path) == ["c.pth.tar"]
    source.write()
    written = Path(source.weights.path)
    before = written.stat().st_mtime_ns
    source.write()
    assert written.stat().st_mtime_ns == before
