"""Checkpoints survive a kill, and weights that don't fit are refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.modeling import build_model
from torch import nn

from common.errors import UserError
from common.run_checkpoints import RunCheckpoints
from detection.checkpoint import RunCheckpointer, require_backbone
from detection.convert import convert
from tests.alone import ALONE, attempt
from tests.detection.helpers import config, shape_state


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def series(folder: Path) -> RunCheckpoints:
    """Of the first job in the folder."""
    return RunCheckpoints(attempt(folder), "model", ".pth")


def test_a_checkpoint_is_saved_and_loaded(tmp_path: Path) -> None:
    model, other = nn.Linear(3, 2), nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    assert not RunCheckpointer(model, series(tmp_path)).resume(ALONE)
    RunCheckpointer(model, series(tmp_path), optimizer=optimizer).save_step(1)
    name = "model_0001_000000001.pth"
    assert files(tmp_path).keys() == {"last_checkpoint", name}
    assert (tmp_path / "last_checkpoint").read_text() == name
    restored = torch.optim.SGD(other.parameters(), lr=0.1)
    checkpointer = RunCheckpointer(other, series(tmp_path), optimizer=restored)
    assert checkpointer.resume(ALONE)
    assert torch.equal(model.weight, other.weight) and restored.param_groups[0]["lr"] == 0.5
    checkpointer.finish()
    assert (tmp_path / "model_final.pth").resolve().name == name


def test_a_checkpoint_that_was_cut_short_falls_back(tmp_path: Path) -> None:
    model, other = nn.Linear(3, 2), nn.Linear(3, 2)
    RunCheckpointer(model, series(tmp_path)).save_step(1)
    RunCheckpointer(nn.Linear(3, 2), series(tmp_path)).save_step(2)
    newest = tmp_path / "model_0001_000000002.pth"
    newest.write_bytes(newest.read_bytes()[:500])
    assert RunCheckpointer(other, series(tmp_path)).resume(ALONE)
    assert torch.equal(model.weight, other.weight)
    assert not newest.exists()


def detector(name: str, *overrides: Any) -> Any:
    narrow: list[Any] = ["MODEL.RESNETS.NORM", "BN"]
    if name == "FPN":
        narrow += ["MODEL.ROI_BOX_HEAD.FC_DIM", 8, "MODEL.ROI_BOX_HEAD.NUM_CONV", 0]
    return build_model(config(f"coco_R_50_{name}_1x_infomin", *narrow, *overrides))


def weights(folder: Path, architecture: str) -> str:
    torch.save(shape_state(architecture), folder / "in.pth")
    convert(folder / "in.pth", folder / "out.pkl")
    return str(folder / "out.pkl")


@pytest.mark.parametrize("name", ["FPN", "C4"])
def test_whole_weights_are_counted(tmp_path: Path, name: str) -> None:
    path = weights(tmp_path, "resnet50")
    checkpointer = RunCheckpointer(detector(name))
    checkpointer.load(path)
    assert require_backbone(checkpointer, path) == 53 + 53 * 4


@pytest.mark.parametrize(
    ("name", "dropped"),
    [("FPN", "bottom_up.res3.2.conv2.norm.running_var"), ("C4", "roi_heads.res5.1.conv3.weight")],
)
def test_one_missing_tensor_is_named(tmp_path: Path, name: str, dropped: str) -> None:
    model = detector(name)
    state = {k: v for k, v in model.state_dict().items() if not k.endswith(dropped)}
    assert len(state) == len(model.state_dict()) - 1
    torch.save({"model": state}, tmp_path / "partial.pth")
    checkpointer = RunCheckpointer(model)
    checkpointer.load(str(tmp_path / "partial.pth"))
    with pytest.raises(UserError, match=rf"no tensor for 1 of .*{dropped}"):
        require_backbone(checkpointer, "partial.pth")
