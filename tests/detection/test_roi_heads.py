"""The C4 head is Detectron2's, and one more norm at its end."""

from typing import Any

import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d, NaiveSyncBatchNorm, ShapeSpec
from detectron2.modeling.roi_heads import Res5ROIHeads
from detectron2.structures import Boxes
from torch import nn

from detection.roi_heads import Res5ROIHeadsExtraNorm
from tests.detection.helpers import config

CHANNELS = 64  # of res5 in a narrow ResNet: 8 of res2


def heads(kind: type[Res5ROIHeads], norm: str) -> Any:
    cfg = config(
        "coco_R_50_C4_1x_infomin", "MODEL.RESNETS.NORM", norm, "MODEL.RESNETS.WIDTH_PER_GROUP", 4,
        "MODEL.RESNETS.RES2_OUT_CHANNELS", CHANNELS // 8,
    )  # fmt: skip
    return kind(cfg, {"res4": ShapeSpec(channels=CHANNELS // 2, stride=16)})


@pytest.mark.parametrize(
    ("norm", "kind"),
    [
        ("BN", nn.BatchNorm2d),
        ("SyncBN", nn.SyncBatchNorm),
        ("naiveSyncBN", NaiveSyncBatchNorm),
        ("FrozenBN", FrozenBatchNorm2d),
        ("GN", nn.GroupNorm),
    ],
)
def test_the_extra_norm_is_of_the_backbones_kind(norm: str, kind: type[nn.Module]) -> None:
    with torch.device("meta"):
        ours, theirs = heads(Res5ROIHeadsExtraNorm, norm), heads(Res5ROIHeads, norm)
    assert type(ours.res5.norm) is kind
    assert list(ours.res5._modules) == ["0", "1", "2", "norm"]  # the order of computation
    shapes = {k: v.shape for k, v in ours.state_dict().items()}
    extra = {k: shapes.pop(k) for k in list(shapes) if k.startswith("res5.norm.")}
    assert extra["res5.norm.weight"] == (CHANNELS,)
    assert shapes == {k: v.shape for k, v in theirs.state_dict().items()}


@torch.no_grad()
def test_it_is_res5_roi_heads_then_the_norm() -> None:
    torch.manual_seed(0)
    ours, theirs = heads(Res5ROIHeadsExtraNorm, "BN").eval(), heads(Res5ROIHeads, "BN").eval()
    norm = ours.res5.norm
    for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        tensor.uniform_(0.5, 2)
    assert not ours.load_state_dict(theirs.state_dict(), strict=False).unexpected_keys
    features = [torch.randn(1, CHANNELS // 2, 12, 12)]
    boxes = [Boxes(torch.tensor([[0.0, 0.0, 100.0, 60.0], [30.0, 20.0, 180.0, 150.0]]))]
    plain = theirs._shared_roi_transform(features, boxes)
    scale = norm.weight / (norm.running_var + 1e-5).sqrt()
    wanted = (plain - norm.running_mean[:, None, None]) * scale[:, None, None]
    wanted += norm.bias[:, None, None]
    assert plain.shape == (2, CHANNELS, 7, 7)
    torch.testing.assert_close(ours._shared_roi_transform(features, boxes), wanted)
