"""Each config builds the detector it stands for; and what a CPU changes in it."""

import logging
from typing import Any

import pytest
import torch
from detectron2.layers import NaiveSyncBatchNorm
from detectron2.modeling import ROIHeads, build_model
from torch import nn

import segmentation  # noqa: F401  registers what configs name
from detection.config import fit_to_device
from tests.detection.helpers import config


def norm_layers(model: nn.Module) -> list[nn.Module]:
    found = (m for m in model.modules() if type(m).__name__.endswith(("Norm", "Norm2d")))
    return [m for m in found if not isinstance(m, ROIHeads)]


SYNC, NAIVE = nn.SyncBatchNorm, NaiveSyncBatchNorm


@pytest.mark.parametrize(
    ("name", "norm", "in_backbone", "in_heads", "stride_in_1x1"),
    [
        ("coco_R_50_C4_1x", SYNC, 43, 10 + 1, True),  # res5, and the extra norm, are in the head
        ("coco_R_50_C4_1x_infomin", SYNC, 43, 10 + 1, False),
        ("coco_R_50_C4_2x_moco", NAIVE, 43, 10 + 1, False),
        ("pascal_voc_R_50_C4_24k_moco", NAIVE, 43, 10 + 1, False),
        ("coco_R_50_FPN_1x", SYNC, 53 + 8, 4 + 4, True),  # 2 for each of FPN's 4 levels
        ("coco_R_50_FPN_2x_infomin", SYNC, 53 + 8, 4 + 4, False),  # 4 each for boxes and masks
        ("coco_R_50_FPN_2x_moco", SYNC, 53 + 8, 0, False),
    ],
)
def test_a_config_builds_its_detector(
    name: str, norm: type[nn.Module], in_backbone: int, in_heads: int, stride_in_1x1: bool
) -> None:
    with torch.device("meta"):  # without its numbers
        model = build_model(config(name, "MODEL.DEVICE", "meta"))
    heads, voc = model.roi_heads, name.startswith("pascal_voc")
    assert (len(norm_layers(model.backbone)), len(norm_layers(heads))) == (in_backbone, in_heads)
    assert {type(m) for m in norm_layers(model)} == {norm}
    assert all(p.requires_grad for p in model.parameters())
    assert heads.box_predictor.cls_score.out_features == (20 if voc else 80) + 1
    assert hasattr(heads, "mask_head") != voc
    block = getattr(model.backbone, "bottom_up", model.backbone).res3[0]
    assert (block.conv1.stride, block.conv2.stride)[not stride_in_1x1] == (2, 2)


NODES = ("RESNETS", "FPN", "ROI_BOX_HEAD", "ROI_MASK_HEAD", "SEM_SEG_HEAD")
NORMS = [f"MODEL.{node}.NORM" for node in NODES]
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
        ("FCN_30k", "cpu", 2, ["naiveSyncBN", "", "", "", "naiveSyncBN"]),
        ("FCN_30k", "cuda", 8, ["SyncBN", "", "", "", "SyncBN"]),
    ],
)
def test_what_a_device_changes(
    name: str, device: str, processes: int, norms: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    name = f"{'pascal_voc' if 'FCN' in name else 'coco'}_R_50_{name}"
    cfg, keys = config(name, "SOLVER.AMP.ENABLED", True), NORMS[: len(norms)]
    wanted = cfg.clone()
    with caplog.at_level(logging.INFO):
        fit_to_device(cfg, device, processes)
    wanted.merge_from_list([word for pair in zip(keys, norms, strict=True) for word in pair])
    wanted.MODEL.DEVICE, wanted.SOLVER.AMP.ENABLED = device, device == "cuda"
    assert cfg == wanted
    own = [lookup(config(name), key) for key in keys]
    replaced = [norm for norm, before in zip(norms, own, strict=True) if norm != before]
    assert [m for m in caplog.messages if "stands in for SyncBN" in m] == [
        f"{norm} stands in for SyncBN between CPU processes" for norm in replaced
    ]


def test_norms_that_are_not_synchronised_stay() -> None:
    cfg = config("coco_R_50_FPN_1x_infomin", "MODEL.RESNETS.NORM", "FrozenBN", "MODEL.FPN.NORM", "")
    fit_to_device(cfg, "cpu", 2)
    assert [lookup(cfg, key) for key in NORMS[:4]] == ["FrozenBN", "", N, N]
