"""Each config builds the detector it stands for; and what a CPU changes in it."""

import logging
from typing import Any

import pytest
import torch
from detectron2.layers import NaiveSyncBatchNorm
from detectron2.modeling import FPN, ROIHeads, build_model
from detectron2.modeling.backbone import ResNet
from detectron2.modeling.roi_heads import FastRCNNConvFCHead, StandardROIHeads
from torch import nn

import detection  # noqa: F401  registers the heads and datasets that configs name
from detection.config import fit_to_device
from detection.roi_heads import Res5ROIHeadsExtraNorm
from tests.detection.helpers import config


def build(name: str) -> Any:
    """The detector without its numbers."""
    with torch.device("meta"):
        return build_model(config(name, "MODEL.DEVICE", "meta"))


def norm_layers(model: nn.Module) -> list[nn.Module]:
    found = (m for m in model.modules() if type(m).__name__.endswith(("Norm", "Norm2d")))
    return [m for m in found if not isinstance(m, ROIHeads)]


@pytest.mark.parametrize(
    ("name", "norm", "classes", "stride_in_1x1"),
    [
        ("coco_R_50_C4_1x", nn.SyncBatchNorm, 80, True),
        ("coco_R_50_C4_1x_infomin", nn.SyncBatchNorm, 80, False),
        ("coco_R_50_C4_2x_moco", NaiveSyncBatchNorm, 80, False),
        ("pascal_voc_R_50_C4_24k", nn.SyncBatchNorm, 20, True),
        ("pascal_voc_R_50_C4_24k_moco", NaiveSyncBatchNorm, 20, False),
        ("pascal_voc_R_50_C4_24k_rand", nn.SyncBatchNorm, 20, True),
    ],
)
def test_c4(name: str, norm: type[nn.Module], classes: int, stride_in_1x1: bool) -> None:
    """ResNet-50's 53 norms and the extra one, all of a kind; masks on COCO, none on VOC."""
    model = build(name)
    assert isinstance(model.backbone, ResNet) and type(model.roi_heads) is Res5ROIHeadsExtraNorm
    assert {type(m) for m in norm_layers(model)} == {norm} and len(norm_layers(model)) == 53 + 1
    assert type(model.roi_heads.res5.norm) is norm
    assert all(p.requires_grad for p in model.parameters())
    predictor = model.roi_heads.box_predictor
    assert predictor.cls_score.out_features == classes + 1
    assert predictor.bbox_pred.out_features == classes * 4
    assert predictor.cls_score.in_features == 2048
    assert hasattr(model.roi_heads, "mask_head") == (classes == 80)
    if classes == 80:
        assert model.roi_heads.mask_head.predictor.out_channels == classes
    assert_stride(model.backbone, stride_in_1x1)


@pytest.mark.parametrize(
    ("name", "convs", "fcs", "head_norms", "stride_in_1x1"),
    [
        ("coco_R_50_FPN_1x", 4, 1, 4 + 4, True),
        ("coco_R_50_FPN_1x_rand", 4, 1, 4 + 4, True),
        ("coco_R_50_FPN_2x_infomin", 4, 1, 4 + 4, False),
        ("coco_R_50_FPN_1x_moco", 0, 2, 0, False),
        ("coco_R_50_FPN_2x_moco", 0, 2, 0, False),
    ],
)
def test_fpn(name: str, convs: int, fcs: int, head_norms: int, stride_in_1x1: bool) -> None:
    """ResNet-50's 53 norms, 2 for each of FPN's 4 levels; InfoMin's heads have theirs too."""
    model = build(name)
    heads = model.roi_heads
    assert isinstance(model.backbone, FPN) and type(heads) is StandardROIHeads
    assert len(norm_layers(model.backbone)) == 53 + 8 and len(norm_layers(heads)) == head_norms
    assert {type(m) for m in norm_layers(model)} == {nn.SyncBatchNorm}
    assert all(p.requires_grad for p in model.parameters())
    assert isinstance(heads.box_head, FastRCNNConvFCHead)
    assert len(heads.box_head.conv_norm_relus) == convs and len(heads.box_head.fcs) == fcs
    assert len(heads.mask_head.conv_norm_relus) == 4
    assert heads.box_predictor.cls_score.out_features == 81
    assert_stride(model.backbone.bottom_up, stride_in_1x1)


def assert_stride(resnet: Any, stride_in_1x1: bool) -> None:
    block = resnet.res3[0]
    wanted = ((2, 2), (1, 1)) if stride_in_1x1 else ((1, 1), (2, 2))
    assert (block.conv1.stride, block.conv2.stride) == wanted


NORMS = [f"MODEL.{node}.NORM" for node in ("RESNETS", "FPN", "ROI_BOX_HEAD", "ROI_MASK_HEAD")]
N = "naiveSyncBN_N"  # where ranks hold different numbers of ROIs; C4's backbone shares its key


def lookup(cfg: Any, key: str) -> Any:
    for word in key.split("."):
        cfg = cfg[word]
    return cfg


@pytest.mark.parametrize(
    ("name", "device", "processes", "norms"),
    [
        ("FPN_1x_infomin", "cpu", 1, ["SyncBN"] * 4),
        ("FPN_1x_infomin", "cpu", 2, ["naiveSyncBN", "naiveSyncBN", N, N]),
        ("FPN_1x_infomin", "cuda", 8, ["SyncBN"] * 4),
        ("C4_1x_infomin", "cpu", 1, ["SyncBN", "", "", ""]),
        ("C4_1x_infomin", "cpu", 2, [N, "", "", ""]),
        ("C4_1x_infomin", "cuda", 8, ["SyncBN", "", "", ""]),
        ("C4_1x_moco", "cpu", 1, ["naiveSyncBN", "", "", ""]),
        ("C4_1x_moco", "cpu", 2, ["naiveSyncBN", "", "", ""]),  # it runs on CPUs as it is
        ("C4_1x_moco", "cuda", 8, ["naiveSyncBN", "", "", ""]),
        ("FPN_1x_moco", "cpu", 2, ["naiveSyncBN", "naiveSyncBN", "", ""]),
    ],
)
def test_what_a_device_changes(
    name: str, device: str, processes: int, norms: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    cfg = config(f"coco_R_50_{name}", "SOLVER.AMP.ENABLED", True)
    wanted = cfg.clone()
    with caplog.at_level(logging.INFO):
        fit_to_device(cfg, device, processes)
    wanted.merge_from_list([word for pair in zip(NORMS, norms, strict=True) for word in pair])
    wanted.MODEL.DEVICE, wanted.SOLVER.AMP.ENABLED = device, device == "cuda"
    assert cfg == wanted
    own = [lookup(config(f"coco_R_50_{name}"), key) for key in NORMS]
    replaced = [norm for norm, before in zip(norms, own, strict=True) if norm != before]
    assert [m for m in caplog.messages if "stands in for SyncBN" in m] == [
        f"{norm} stands in for SyncBN between CPU processes" for norm in replaced
    ]


def test_norms_that_are_not_synchronised_stay() -> None:
    cfg = config("coco_R_50_FPN_1x_infomin", "MODEL.RESNETS.NORM", "FrozenBN", "MODEL.FPN.NORM", "")
    fit_to_device(cfg, "cpu", 2)
    assert [lookup(cfg, key) for key in NORMS] == ["FrozenBN", "", N, N]
