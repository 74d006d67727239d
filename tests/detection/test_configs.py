"""The configs resolve to the published protocols, and variants differ in what they must."""

from typing import Any

import pytest
import yaml
from detectron2.config import CfgNode, get_cfg

import detection  # noqa: F401  registers the heads and datasets that configs name
from tests.detection.helpers import CONFIGS

# MoCo (arXiv 1911.05722, section 4.2), InfoMin (arXiv 2005.10243) and Detectron2's own 1x and 2x.
COMMON = {
    "MODEL.META_ARCHITECTURE": "GeneralizedRCNN",
    "MODEL.BACKBONE.FREEZE_AT": 0,
    "MODEL.RESNETS.DEPTH": 50,
    "MODEL.RESNETS.NORM": "SyncBN",
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 256,
    "MODEL.RESNETS.RES5_DILATION": 1,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 512,
    "MODEL.ROI_HEADS.POSITIVE_FRACTION": 0.25,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.05,
    "MODEL.ROI_HEADS.NMS_THRESH_TEST": 0.5,
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIAlignV2",
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": 256,
    "MODEL.RPN.NMS_THRESH": 0.7,
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [[0.5, 1.0, 2.0]],
    "INPUT.MIN_SIZE_TRAIN_SAMPLING": "choice",
    "INPUT.MAX_SIZE_TRAIN": 1333,
    "INPUT.MIN_SIZE_TEST": 800,
    "INPUT.MAX_SIZE_TEST": 1333,
    "INPUT.RANDOM_FLIP": "horizontal",
    "INPUT.CROP.ENABLED": False,
    "SOLVER.IMS_PER_BATCH": 16,
    "SOLVER.BASE_LR": 0.02,
    "SOLVER.MOMENTUM": 0.9,
    "SOLVER.NESTEROV": False,
    "SOLVER.WEIGHT_DECAY": 1e-4,
    "SOLVER.WEIGHT_DECAY_NORM": 0.0,
    "SOLVER.LR_SCHEDULER_NAME": "WarmupMultiStepLR",
    "SOLVER.GAMMA": 0.1,
    "SOLVER.WARMUP_FACTOR": 1e-3,
    "SOLVER.WARMUP_METHOD": "linear",
    "SOLVER.CLIP_GRADIENTS.ENABLED": False,
    "SOLVER.AMP.ENABLED": False,
    "TEST.PRECISE_BN.ENABLED": True,
    "TEST.PRECISE_BN.NUM_ITER": 200,
    "TEST.AUG.ENABLED": False,
    "TEST.DETECTIONS_PER_IMAGE": 100,
}
COCO = COMMON | {
    "MODEL.MASK_ON": True,
    "MODEL.ROI_HEADS.NUM_CLASSES": 80,
    "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": 14,
    "INPUT.MIN_SIZE_TRAIN": (640, 672, 704, 736, 768, 800),
    "DATASETS.TRAIN": ("coco_2017_train",),
    "DATASETS.TEST": ("coco_2017_val",),
    "SOLVER.WARMUP_ITERS": 1000,
}
C4_HEAD = {
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
MOCO_FPN_HEAD = {
    "MODEL.BACKBONE.NAME": "build_resnet_fpn_backbone",
    "MODEL.RESNETS.OUT_FEATURES": ["res2", "res3", "res4", "res5"],
    "MODEL.FPN.IN_FEATURES": ["res2", "res3", "res4", "res5"],
    "MODEL.FPN.NORM": "SyncBN",
    "MODEL.FPN.OUT_CHANNELS": 256,
    "MODEL.FPN.FUSE_TYPE": "sum",
    "MODEL.ANCHOR_GENERATOR.SIZES": [[32], [64], [128], [256], [512]],
    "MODEL.RPN.IN_FEATURES": ["p2", "p3", "p4", "p5", "p6"],
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": 2000,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 1000,
    "MODEL.RPN.PRE_NMS_TOPK_TEST": 1000,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 1000,
    "MODEL.ROI_HEADS.NAME": "StandardROIHeads",
    "MODEL.ROI_HEADS.IN_FEATURES": ["p2", "p3", "p4", "p5"],
    "MODEL.ROI_BOX_HEAD.NAME": "FastRCNNConvFCHead",
    "MODEL.ROI_BOX_HEAD.NUM_CONV": 0,
    "MODEL.ROI_BOX_HEAD.CONV_DIM": 256,
    "MODEL.ROI_BOX_HEAD.NUM_FC": 2,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 1024,
    "MODEL.ROI_BOX_HEAD.NORM": "",
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 7,
    "MODEL.ROI_MASK_HEAD.NAME": "MaskRCNNConvUpsampleHead",
    "MODEL.ROI_MASK_HEAD.NUM_CONV": 4,
    "MODEL.ROI_MASK_HEAD.CONV_DIM": 256,
    "MODEL.ROI_MASK_HEAD.NORM": "",
}
INFOMIN_FPN_HEAD = MOCO_FPN_HEAD | {
    "MODEL.ROI_BOX_HEAD.NUM_CONV": 4,
    "MODEL.ROI_BOX_HEAD.NUM_FC": 1,
    "MODEL.ROI_BOX_HEAD.NORM": "SyncBN",
    "MODEL.ROI_MASK_HEAD.NORM": "SyncBN",
}
ONE_X = {"SOLVER.MAX_ITER": 90_000, "SOLVER.STEPS": (60_000, 80_000)}
TWO_X = {"SOLVER.MAX_ITER": 180_000, "SOLVER.STEPS": (120_000, 160_000)}
VOC_24K = COMMON | {
    "MODEL.MASK_ON": False,
    "MODEL.ROI_HEADS.NUM_CLASSES": 20,
    "INPUT.MIN_SIZE_TRAIN": (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800),
    "DATASETS.TRAIN": ("voc_2007_trainval", "voc_2012_trainval"),
    "DATASETS.TEST": ("voc_2007_test",),
    "SOLVER.MAX_ITER": 24_000,
    "SOLVER.STEPS": (18_000, 22_000),
    "SOLVER.WARMUP_ITERS": 100,
}

SUPERVISED = {
    "MODEL.WEIGHTS": "detectron2://ImageNetPretrained/MSRA/R-50.pkl",
    "MODEL.PIXEL_MEAN": [103.53, 116.28, 123.675],
    "MODEL.PIXEL_STD": [1.0, 1.0, 1.0],
    "MODEL.RESNETS.STRIDE_IN_1X1": True,
    "INPUT.FORMAT": "BGR",
}
RANDOM = SUPERVISED | {"MODEL.WEIGHTS": ""}
SELF_SUPERVISED = {
    "MODEL.WEIGHTS": "See Instructions",
    "MODEL.PIXEL_MEAN": [123.675, 116.28, 103.53],
    "MODEL.PIXEL_STD": [58.395, 57.12, 57.375],
    "MODEL.RESNETS.STRIDE_IN_1X1": False,
    "INPUT.FORMAT": "RGB",
}
MOCO = SELF_SUPERVISED | {"MODEL.RESNETS.NORM": "naiveSyncBN"}  # in C4 and VOC; SyncBN in FPN

C4_STARTS = {"": SUPERVISED, "_infomin": SELF_SUPERVISED, "_moco": MOCO, "_rand": RANDOM}
FPN_STARTS = {"": SUPERVISED, "_infomin": SELF_SUPERVISED, "_rand": RANDOM}
FAMILIES: list[tuple[str, dict[str, Any], dict[str, dict[str, Any]]]] = [
    ("coco_R_50_C4_1x", COCO | C4_HEAD | ONE_X, C4_STARTS),
    ("coco_R_50_C4_2x", COCO | C4_HEAD | TWO_X, C4_STARTS),
    ("coco_R_50_FPN_1x", COCO | INFOMIN_FPN_HEAD | ONE_X, FPN_STARTS),
    ("coco_R_50_FPN_2x", COCO | INFOMIN_FPN_HEAD | TWO_X, FPN_STARTS),
    ("coco_R_50_FPN_1x", COCO | MOCO_FPN_HEAD | ONE_X, {"_moco": SELF_SUPERVISED}),
    ("coco_R_50_FPN_2x", COCO | MOCO_FPN_HEAD | TWO_X, {"_moco": SELF_SUPERVISED}),
    ("pascal_voc_R_50_C4_24k", VOC_24K | C4_HEAD, C4_STARTS),
]
PUBLISHED = {
    f"{name}{start}": protocol | weights
    for name, protocol, starts in FAMILIES
    for start, weights in starts.items()
}


def resolve(name: str) -> dict[str, Any]:
    """Every key of a config and its value, with Detectron2's own reader."""
    cfg = get_cfg()
    cfg.merge_from_file(str(CONFIGS / f"{name}.yaml"))
    return flat(cfg)


def flat(node: Any, prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in node.items():
        inside = hasattr(value, "items")
        found |= flat(value, f"{prefix}{key}.") if inside else {f"{prefix}{key}": value}
    return found


def differing(one: dict[str, Any], other: dict[str, Any]) -> set[str]:
    return {key for key in one.keys() | other.keys() if one.get(key) != other.get(key)}


def test_every_published_config_is_in_the_table() -> None:
    names = {path.stem for path in CONFIGS.glob("*_R_50_*.yaml")}
    assert {n for n in names if "_FCN_" not in n} == PUBLISHED.keys()  # FCN: segmentation


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_config_is_the_published_protocol(name: str) -> None:
    found = resolve(name)
    assert {key: found[key] for key in PUBLISHED[name]} == PUBLISHED[name]
    # and the table leaves nothing out that a file changes
    assert differing(found, flat(get_cfg())) <= PUBLISHED[name].keys()


def test_nothing_is_said_twice() -> None:
    """A file never gives a key the value that it has already, Detectron2's defaults aside."""
    for path in CONFIGS.glob("*_R_50_*.yaml"):
        own = yaml.safe_load(path.read_text())
        bases = own.pop("_BASE_", [])
        inherited: dict[str, Any] = {}
        for base in [bases] if isinstance(bases, str) else bases:
            inherited |= flat(CfgNode.load_yaml_with_base(str(CONFIGS / base)))
        said = flat(own)
        assert not {key for key in said if said[key] == inherited.get(key)}, path.name
