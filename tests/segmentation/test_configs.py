"""The published configs are the papers' protocol, and load with a plain ``get_cfg()``."""

from typing import Any

import pytest
from detectron2.config import get_cfg
from torch import nn, optim

import segmentation  # noqa: F401  registers what configs name
from detection.datasets import uses_demo
from detection.evaluation import kind_of
from detection.schedule import build_lr_scheduler
from segmentation.evaluation import SEGMENTATION
from segmentation.masks import CLASSES
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
    "SOLVER.WEIGHT_DECAY_NORM": 0.0,
    "SOLVER.MAX_ITER": 30_000,
    "SOLVER.STEPS": (21_000, 27_000),
    "SOLVER.GAMMA": 0.1,
    "SOLVER.AMP.ENABLED": False,
}
D8 = PUBLISHED | {  # DenseCL's fork of mmsegmentation, configs/densecl, and mmselfsup 0.x
    "MODEL.META_ARCHITECTURE": "FCND8",
    "MODEL.RESNETS.RES5_DILATION": 4,
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": 512,
    "INPUT.MIN_SIZE_TRAIN": (256, 1024),
    "INPUT.MAX_SIZE_TRAIN": 4 * 1024,
    "INPUT.CROP.SIZE": [512, 512],
    "INPUT.MIN_SIZE_TEST": 512,
    "INPUT.MAX_SIZE_TEST": 2048,
    "SOLVER.BASE_LR": 0.01,
    "SOLVER.WEIGHT_DECAY": 5e-4,
    "SOLVER.WEIGHT_DECAY_NORM": 5e-4,
    "SOLVER.MAX_ITER": 20_000,
    "SOLVER.STEPS": (),
    "SOLVER.GAMMA": 0.01,
    "SOLVER.WARMUP_ITERS": 0,
    "TEST.PRECISE_BN.ENABLED": False,
}


def lookup(cfg: Any, key: str) -> Any:
    for word in key.split("."):
        cfg = cfg[word]
    return cfg


@pytest.mark.parametrize(("start", "weights"), [("", "See Instructions"), ("_rand", "")])
@pytest.mark.parametrize(("name", "protocol"), [("30k", PUBLISHED), ("D8_20k", D8)])
def test_a_config_is_the_published_protocol(
    name: str, protocol: dict[str, Any], start: str, weights: str
) -> None:
    cfg = get_cfg()
    cfg.merge_from_file(str(CONFIGS / f"pascal_voc_R_50_FCN_{name}{start}.yaml"))
    assert {key: lookup(cfg, key) for key in protocol} == protocol
    assert weights == cfg.MODEL.WEIGHTS
    assert len(CLASSES) == 21 and not uses_demo(cfg)
    assert kind_of(cfg, [SEGMENTATION]).job == "segmentation"


def rates(name: str, *overrides: Any) -> list[float]:
    """The learning rate of every iteration, as an optimizer has it."""
    cfg, found = config(name, *overrides), []
    optimizer = optim.SGD([nn.Parameter()], lr=cfg.SOLVER.BASE_LR)
    schedule = build_lr_scheduler(cfg, optimizer)
    for _ in range(cfg.SOLVER.MAX_ITER):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_the_learning_rate_falls_at_70_and_90_percent() -> None:
    wanted = {0: 3e-3, 1: 3e-3, 20_999: 3e-3, 21_000: 3e-4, 26_999: 3e-4, 27_000: 3e-5,
              29_999: 3e-5}  # fmt: skip
    found = rates("pascal_voc_R_50_FCN_30k")
    assert {iteration: found[iteration] for iteration in wanted} == pytest.approx(wanted)


def test_the_learning_rate_of_d8_is_mmcvs_polynomial() -> None:
    """(lr - min_lr) * (1 - iteration / 20k) ** 0.9 + min_lr: mmcv 1.x, PolyLrUpdaterHook."""
    found = rates("pascal_voc_R_50_FCN_D8_20k")
    assert found == pytest.approx(
        [(0.01 - 1e-4) * (1 - i / 20_000) ** 0.9 + 1e-4 for i in range(20_000)], rel=1e-12
    )
    assert (found[0], found[10_000], found[19_999]) == pytest.approx(
        (0.01, 0.005405279, 0.000101332), abs=1e-9
    )


def test_another_rate_of_d8_ends_at_the_same_share() -> None:
    """With a warm-up, which is Detectron2's: linear, to where the polynomial is then."""
    found = rates("pascal_voc_R_50_FCN_D8_20k", "SOLVER.BASE_LR", 0.2, "SOLVER.MAX_ITER", 100,
                  "SOLVER.WARMUP_ITERS", 10)  # fmt: skip
    assert found[50] == pytest.approx(0.2 * (0.99 * 0.5**0.9 + 0.01))
    assert found[0] == pytest.approx(0.2 / 1000) and found[:11] == sorted(found[:11])
