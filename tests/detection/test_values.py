"""Values that Detectron2 would find wrong in the job, or take for something else."""

from typing import Any

import pytest

import detection.config
import segmentation  # noqa: F401  registers FCN
from common.errors import UserError
from tests.detection.helpers import CONFIGS

NAME = "coco_R_50_FPN_1x_infomin"


def read(*overrides: Any, eval_only: bool = False) -> Any:
    """The config as a job reads it; overrides are words."""
    words = tuple(map(str, overrides))
    yaml = detection.config.read(CONFIGS / f"{NAME}.yaml")
    return detection.config.resolve(yaml, overrides=words, eval_only=eval_only).detectron2()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("SOLVER.CHECKPOINT_PERIOD", 0), r"SOLVER\.CHECKPOINT_PERIOD is 0; it must be at least"),
        (("SOLVER.MAX_ITER", 0), r"SOLVER\.MAX_ITER is 0; it must be at least 1\."),
        (("MODEL.META_ARCHITECTURE", "Foo"), r"ARCHITECTURE is Foo, .* knows .*GeneralizedRCNN, "),
        (("MODEL.BACKBONE.NAME", "Foo"), r"MODEL\.BACKBONE\.NAME is Foo, which .* build_resnet_"),
        (("MODEL.PROPOSAL_GENERATOR.NAME", "rpn"), r"GENERATOR\.NAME is rpn, .* knows .*RPN"),
        (("MODEL.RESNETS.NORM", "Foo"), r"MODEL\.RESNETS\.NORM is Foo, which is no norm .* BN, "),
        (("DATASETS.TRAIN", ()), r"DATASETS\.TRAIN is empty; name a dataset to train on\."),
        (("INPUT.RANDOM_FLIP", "both"), r"RANDOM_FLIP is both; choose one of horizontal, vert"),
        (("DATALOADER.SAMPLER_TRAIN", "Foo"), r"SAMPLER_TRAIN is Foo; .* such as TrainingSam"),
        (("TEST.PRECISE_BN.NUM_ITER", 0), r"PRECISE_BN\.NUM_ITER is 0; it must be at least 1"),
        (("TEST.AUG.ENABLED", True), r"TEST\.AUG\.ENABLED is True, but .* without test-time aug"),
        (("SOLVER.STEPS", (80000, 60000)), r"STEPS, .* no schedule .* milestone=60000\."),
        (("SOLVER.MAX_ITER", 60000), r"STEPS, .* num_updates=60000, milestone=60000\."),
        (("MODEL.ROI_HEADS.NAME", "PrecomputedProposals"), r"is PrecomputedProposals, which"),
        (("SOLVER.LR_SCHEDULER_NAME", "Foo"), r"LR_SCHEDULER_NAME.*: Unknown LR scheduler: Foo\."),
        (("SOLVER.WARMUP_METHOD", "cosine"), r"WARMUP_METHOD .*: Unknown warmup method: cosine\."),
    ],
)
def test_a_value_that_detectron2_cannot_work_with_is_named(
    overrides: tuple[Any, ...], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        read(*overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        ("TEST.PRECISE_BN.ENABLED", False, "TEST.PRECISE_BN.NUM_ITER", 0),
        ("MODEL.PROPOSAL_GENERATOR.NAME", "PrecomputedProposals"),
        ("SOLVER.MAX_ITER", 2),  # before all steps
        ("SOLVER.LR_SCHEDULER_NAME", "WarmupCosineLR", "SOLVER.STEPS", (2, 1)),  # not its
        *(("DATALOADER.SAMPLER_TRAIN", f"{name}TrainingSampler") for name in ("", "RepeatFactor")),
        *(("MODEL.RESNETS.NORM", norm) for norm in ("''", "BN", "naiveSyncBN_N", "FrozenBN", "GN")),
    ],
)
def test_what_detectron2_can_work_with_passes(overrides: tuple[Any, ...]) -> None:
    read(*overrides)


def test_who_only_evaluates_needs_no_training_set() -> None:
    nothing = ("DATASETS.TRAIN", "()")
    read(*nothing, eval_only=True)
    with pytest.raises(UserError, match=r"DATASETS\.TRAIN is empty"):
        read(*nothing)
