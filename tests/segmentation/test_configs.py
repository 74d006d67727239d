"""The published configs are the papers' protocol, and load with a plain ``get_cfg()``."""

from typing import Any

import pytest
from detectron2.config import get_cfg
from detectron2.solver import build_lr_scheduler
from torch import nn, optim

import segmentation  # noqa: F401  registers what configs name
from detection.config import fit_to_device
from detection.datasets import uses_demo
from detection.evaluation import kind_of
from segmentation.datasets import CLASSES
from tests.detection.helpers import CONFIGS, config

PUBLISHED = {  # MoCo (arXiv 1911.05722), A.5; BYOL (arXiv 2006.07733), D.4
    "MODEL.META_ARCHITECTURE": "FCN",
    "MODEL.RESNETS.DEPTH": 50,
    "MODEL.RESNETS.RES5_DILATION": 2,
    "MODEL.RESNETS.STRIDE_IN_1X1": False,
    "MODEL.RESNETS.NORM": "SyncBN",
    "MODEL.BACKBONE.FREEZE_AT": 0,
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": 256,
    "MODEL.SEM_SEG_HEAD.NORM": "SyncBN",
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 21,
    "MODEL.SEM_SEG_HEAD.IGNORE_VALUE": 255,
    "MODEL.PIXEL_MEAN": [123.675, 116.28, 103.53],
    "MODEL.PIXEL_STD": [58.395, 57.12, 57.375],
    "INPUT.FORMAT": "RGB",
    "INPUT.MIN_SIZE_TRAIN": (0.5, 2.0),
    "INPUT.CROP.ENABLED": True,
    "INPUT.CROP.SIZE": [513, 513],
    "INPUT.RANDOM_FLIP": "horizontal",
    "INPUT.MIN_SIZE_TEST": 0,
    "DATASETS.TRAIN": ("voc_2012_train_aug_sem_seg",),
    "DATASETS.TEST": ("voc_2012_val_sem_seg",),
    "SOLVER.IMS_PER_BATCH": 16,
    "SOLVER.BASE_LR": 0.003,
    "SOLVER.WEIGHT_DECAY": 1e-4,
    "SOLVER.MAX_ITER": 30_000,
    "SOLVER.STEPS": (21_000, 27_000),
    "SOLVER.GAMMA": 0.1,
    "SOLVER.AMP.ENABLED": False,
}


def lookup(cfg: Any, key: str) -> Any:
    for word in key.split("."):
        cfg = cfg[word]
    return cfg


@pytest.mark.parametrize(("start", "weights"), [("", "See Instructions"), ("_rand", "")])
def test_a_config_is_the_published_protocol(start: str, weights: str) -> None:
    cfg = get_cfg()
    cfg.merge_from_file(str(CONFIGS / f"pascal_voc_R_50_FCN_30k{start}.yaml"))
    assert {key: lookup(cfg, key) for key in PUBLISHED} == PUBLISHED
    assert weights == cfg.MODEL.WEIGHTS
    assert len(CLASSES) == 21 and not uses_demo(cfg)
    assert kind_of(cfg).job == "segmentation"


def test_the_learning_rate_falls_at_70_and_90_percent() -> None:
    cfg = config("pascal_voc_R_50_FCN_30k")
    optimizer = optim.SGD([nn.Parameter()], lr=cfg.SOLVER.BASE_LR)
    schedule = build_lr_scheduler(cfg, optimizer)
    wanted = {0: 3e-3, 1: 3e-3, 20_999: 3e-3, 21_000: 3e-4, 26_999: 3e-4, 27_000: 3e-5,
              29_999: 3e-5}  # fmt: skip
    found = {}
    for iteration in range(30_000):
        if iteration in wanted:
            found[iteration] = optimizer.param_groups[0]["lr"]
        optimizer.step()
        schedule.step()
    assert found == pytest.approx(wanted)


def test_the_demo_is_the_same_but_small() -> None:
    cfg = config("demo_voc_R_18_FCN")
    assert uses_demo(cfg) and kind_of(cfg).job == "segmentation"
    for key in ("MODEL.META_ARCHITECTURE", "MODEL.RESNETS.RES5_DILATION", "INPUT.FORMAT",
                "MODEL.SEM_SEG_HEAD.NUM_CLASSES", "MODEL.RESNETS.NORM"):  # fmt: skip
        assert lookup(cfg, key) == PUBLISHED[key]


@pytest.mark.parametrize(
    ("device", "processes", "norm"),
    [("cpu", 1, "SyncBN"), ("cpu", 2, "naiveSyncBN"), ("cuda", 8, "SyncBN")],
)
def test_bn_is_synchronised_everywhere(device: str, processes: int, norm: str) -> None:
    cfg = config("pascal_voc_R_50_FCN_30k")
    fit_to_device(cfg, device, processes)
    assert {cfg.MODEL.RESNETS.NORM, cfg.MODEL.SEM_SEG_HEAD.NORM} == {norm}
