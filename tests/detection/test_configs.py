"""The published configs resolve to the published protocols; and what a CPU changes in them."""

import logging
from typing import Any

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import ROIHeads, build_model
from torch import nn

import detection  # noqa: F401  registers the heads and datasets that configs name
from detection.config import fit_to_device
from tests.detection.helpers import CONFIGS, config

# MoCo (arXiv 1911.05722, section 4.2), InfoMin (arXiv 2005.10243) and Detectron2's own 1x and 2x.
COMMON = {
    "MODEL.META_ARCHITECTURE": "GeneralizedRCNN",
    "MODEL.MASK_ON": True,
    "MODEL.BACKBONE.FREEZE_AT": 0,
    "MODEL.RESNETS.DEPTH": 50,
    "MODEL.RESNETS.NORM": "SyncBN",
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 256,
    "MODEL.RESNETS.RES5_DILATION": 1,
    "MODEL.ROI_HEADS.NUM_CLASSES": 80,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 512,
    "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": 14,
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [[0.5, 1.0, 2.0]],
    "INPUT.MIN_SIZE_TRAIN": (640, 672, 704, 736, 768, 800),
    "INPUT.MIN_SIZE_TRAIN_SAMPLING": "choice",
    "INPUT.MAX_SIZE_TRAIN": 1333,
    "INPUT.MIN_SIZE_TEST": 800,
    "INPUT.MAX_SIZE_TEST": 1333,
    "INPUT.RANDOM_FLIP": "horizontal",
    "DATASETS.TRAIN": ("coco_2017_train",),
    "DATASETS.TEST": ("coco_2017_val",),
    "SOLVER.IMS_PER_BATCH": 16,
    "SOLVER.BASE_LR": 0.02,
    "SOLVER.MOMENTUM": 0.9,
    "SOLVER.NESTEROV": False,
    "SOLVER.WEIGHT_DECAY": 1e-4,
    "SOLVER.WEIGHT_DECAY_NORM": 0.0,
    "SOLVER.LR_SCHEDULER_NAME": "WarmupMultiStepLR",
    "SOLVER.GAMMA": 0.1,
    "SOLVER.WARMUP_ITERS": 1000,
    "SOLVER.CLIP_GRADIENTS.ENABLED": False,
    "SOLVER.AMP.ENABLED": False,
    "TEST.PRECISE_BN.ENABLED": True,
    "TEST.PRECISE_BN.NUM_ITER": 200,
    "TEST.AUG.ENABLED": False,
    "TEST.DETECTIONS_PER_IMAGE": 100,
}
SELF_SUPERVISED = {
    "MODEL.WEIGHTS": "See Instructions",
    "MODEL.PIXEL_MEAN": [123.675, 116.28, 103.53],
    "MODEL.PIXEL_STD": [58.395, 57.12, 57.375],
    "MODEL.RESNETS.STRIDE_IN_1X1": False,
    "INPUT.FORMAT": "RGB",
}
C4 = {
    "MODEL.BACKBONE.NAME": "build_resnet_backbone",
    "MODEL.RESNETS.OUT_FEATURES": ["res4"],
    "MODEL.ANCHOR_GENERATOR.SIZES": [[32, 64, 128, 256, 512]],
    "MODEL.RPN.IN_FEATURES": ["res4"],
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": 12000,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 2000,
    "MODEL.RPN.PRE_NMS_TOPK_TEST": 6000,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 1000,
    "MODEL.ROI_HEADS.NAME": "Res5ROIHeadsExtraNorm",
    "MODEL.ROI_HEADS.IN_FEATURES": ["res4"],
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 14,
    "MODEL.ROI_MASK_HEAD.NUM_CONV": 0,
}
FPN = {
    "MODEL.BACKBONE.NAME": "build_resnet_fpn_backbone",
    "MODEL.RESNETS.OUT_FEATURES": ["res2", "res3", "res4", "res5"],
    "MODEL.FPN.IN_FEATURES": ["res2", "res3", "res4", "res5"],
    "MODEL.FPN.NORM": "SyncBN",
    "MODEL.FPN.OUT_CHANNELS": 256,
    "MODEL.ANCHOR_GENERATOR.SIZES": [[32], [64], [128], [256], [512]],
    "MODEL.RPN.IN_FEATURES": ["p2", "p3", "p4", "p5", "p6"],
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": 2000,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 1000,
    "MODEL.RPN.PRE_NMS_TOPK_TEST": 1000,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 1000,
    "MODEL.ROI_HEADS.NAME": "StandardROIHeads",
    "MODEL.ROI_HEADS.IN_FEATURES": ["p2", "p3", "p4", "p5"],
    "MODEL.ROI_BOX_HEAD.NAME": "FastRCNNConvFCHead",
    "MODEL.ROI_BOX_HEAD.NUM_CONV": 4,
    "MODEL.ROI_BOX_HEAD.CONV_DIM": 256,
    "MODEL.ROI_BOX_HEAD.NUM_FC": 1,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 1024,
    "MODEL.ROI_BOX_HEAD.NORM": "SyncBN",
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 7,
    "MODEL.ROI_MASK_HEAD.NAME": "MaskRCNNConvUpsampleHead",
    "MODEL.ROI_MASK_HEAD.NUM_CONV": 4,
    "MODEL.ROI_MASK_HEAD.CONV_DIM": 256,
    "MODEL.ROI_MASK_HEAD.NORM": "SyncBN",
}
ONE_X = {"SOLVER.MAX_ITER": 90_000, "SOLVER.STEPS": (60_000, 80_000)}
TWO_X = {"SOLVER.MAX_ITER": 180_000, "SOLVER.STEPS": (120_000, 160_000)}

PUBLISHED: dict[str, dict[str, Any]] = {
    "coco_R_50_C4_1x_infomin": COMMON | SELF_SUPERVISED | C4 | ONE_X,
    "coco_R_50_FPN_1x_infomin": COMMON | SELF_SUPERVISED | FPN | ONE_X,
    "coco_R_50_FPN_2x_infomin": COMMON | SELF_SUPERVISED | FPN | TWO_X,
}


def lookup(cfg: Any, key: str) -> Any:
    for word in key.split("."):
        cfg = cfg[word]
    return cfg


def test_every_published_config_is_in_the_table() -> None:
    names = {path.stem for path in CONFIGS.glob("*.yaml")}
    assert {n for n in names if not n.startswith(("Base-", "demo_"))} == PUBLISHED.keys()


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_config_is_the_published_protocol(name: str) -> None:
    cfg = get_cfg()
    cfg.merge_from_file(str(CONFIGS / f"{name}.yaml"))
    assert {key: lookup(cfg, key) for key in PUBLISHED[name]} == PUBLISHED[name]


@pytest.mark.parametrize(("name", "synced"), [("C4", 53 + 1), ("FPN", 53 + 8 + 4 + 4)])
def test_every_norm_is_trained_and_synchronised(name: str, synced: int) -> None:
    """C4: ResNet-50 and the extra norm. FPN: and 2 for each of 4 levels, box and mask head's 4."""
    cfg = config(f"coco_R_50_{name}_1x_infomin", "MODEL.DEVICE", "meta")
    with torch.device("meta"):
        model = build_model(cfg)
    norms = [m for m in model.modules() if type(m).__name__.endswith(("Norm", "Norm2d"))]
    norms = [m for m in norms if not isinstance(m, ROIHeads)]
    assert {type(m) for m in norms} == {nn.SyncBatchNorm} and len(norms) == synced
    assert all(p.requires_grad for p in model.parameters())


NORMS = [f"MODEL.{node}.NORM" for node in ("RESNETS", "FPN", "ROI_BOX_HEAD", "ROI_MASK_HEAD")]
N = "naiveSyncBN_N"  # where ranks hold different numbers of ROIs; C4's backbone shares its key


@pytest.mark.parametrize(
    ("name", "device", "processes", "norms"),
    [
        ("FPN", "cpu", 1, ["SyncBN"] * 4),
        ("FPN", "cpu", 2, ["naiveSyncBN", "naiveSyncBN", N, N]),
        ("FPN", "cuda", 8, ["SyncBN"] * 4),
        ("C4", "cpu", 1, ["SyncBN", "", "", ""]),
        ("C4", "cpu", 2, [N, "", "", ""]),
        ("C4", "cuda", 8, ["SyncBN", "", "", ""]),
    ],
)
def test_what_a_device_changes(
    name: str, device: str, processes: int, norms: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    cfg = config(f"coco_R_50_{name}_1x_infomin", "SOLVER.AMP.ENABLED", True)
    wanted = cfg.clone()
    with caplog.at_level(logging.INFO):
        fit_to_device(cfg, device, processes)
    wanted.merge_from_list([word for pair in zip(NORMS, norms, strict=True) for word in pair])
    wanted.MODEL.DEVICE, wanted.SOLVER.AMP.ENABLED = device, device == "cuda"
    assert cfg == wanted
    replaced = [norm for norm in norms if norm.startswith("naive")]
    assert [m for m in caplog.messages if "stands in for SyncBN" in m] == [
        f"{norm} stands in for SyncBN between CPU processes" for norm in replaced
    ]


def test_norms_that_are_not_synchronised_stay() -> None:
    cfg = config("coco_R_50_FPN_1x_infomin", "MODEL.RESNETS.NORM", "FrozenBN", "MODEL.FPN.NORM", "")
    fit_to_device(cfg, "cpu", 2)
    assert [lookup(cfg, key) for key in NORMS] == ["FrozenBN", "", N, N]
