"""What the training mapper is asked for, and what Detectron2 makes of it."""

import pytest
from detectron2.data import transforms as T

from common.errors import UserError
from detection.mapper import CROPS, TrainMapper
from tests.detection.helpers import config


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ("INPUT.MIN_SIZE_TRAIN_SAMPLING", "relative_range"),
            r"INPUT\.MIN_SIZE_TRAIN_SAMPLING is relative_range .*; give choice and any sizes",
        ),
        (
            ("INPUT.MIN_SIZE_TRAIN_SAMPLING", "range", "INPUT.MIN_SIZE_TRAIN", (64,)),
            r"is range and INPUT\.MIN_SIZE_TRAIN \(64,\); .* or range and two",
        ),
        (("INPUT.MIN_SIZE_TRAIN", ()), r"is choice and INPUT\.MIN_SIZE_TRAIN \(\); give choice"),
        (
            ("INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", "square"),
            rf"INPUT\.CROP\.TYPE is square; choose one of {', '.join(CROPS)}",
        ),
    ],
)
def test_what_a_config_cannot_ask_for(overrides: tuple[object, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        TrainMapper(config("demo_R_18_FPN", *overrides))


@pytest.mark.parametrize("crop", CROPS)
@pytest.mark.parametrize(("sampling", "sizes"), [("choice", (64,)), ("range", (64, 96))])
def test_what_a_config_can(crop: str, sampling: str, sizes: tuple[int, ...]) -> None:
    overrides = ("INPUT.MIN_SIZE_TRAIN_SAMPLING", sampling, "INPUT.MIN_SIZE_TRAIN", sizes)
    mapper = TrainMapper(
        config("demo_R_18_FPN", *overrides, "INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", crop)
    )
    kinds = [type(augmentation) for augmentation in mapper.augmentations.augs]
    assert kinds == [T.RandomCrop, T.ResizeShortestEdge, T.RandomFlip]
