"""Crops: their size and padding, image and mask as one, and the ratio of the scale."""

import itertools
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.data import transforms as T
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

import segmentation  # noqa: F401  registers the embedded data
from common.errors import UserError
from detection.stream import Stream
from segmentation.mapper import CropOrPad, RandomScale, SegmentationMapper, augmentations
from tests.detection.helpers import config

R50 = "pascal_voc_R_50_FCN_30k"
FILL = np.array([124, 116, 104], np.uint8)  # 123.675, 116.28, 103.53
sizes = st.integers(1, 90)


def encoded(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An image whose every pixel tells its label."""
    return np.stack([mask, mask // 2, 255 - mask], axis=2)


def labelled(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 21, (height, width)).astype(np.uint8)


def apply(steps: list[T.Augmentation], mask: NDArray[np.uint8], seed: int) -> Any:
    np.random.seed(seed)
    both = T.AugInput(encoded(mask), sem_seg=mask)
    T.AugmentationList(steps)(both)
    return both


@settings(max_examples=60, deadline=None)
@given(sizes, sizes, sizes, sizes, st.integers(0, 2**31))
def test_a_crop_is_a_window_or_padded(
    height: int, width: int, crop_height: int, crop_width: int, seed: int
) -> None:
    mask = labelled(height, width, seed)
    both = apply([CropOrPad((crop_height, crop_width), FILL, 255)], mask, seed)
    assert both.image.shape == (crop_height, crop_width, 3)
    assert both.sem_seg.shape == (crop_height, crop_width)
    assert both.image.dtype == both.sem_seg.dtype == np.uint8
    seen_height, seen_width = min(height, crop_height), min(width, crop_width)
    window = both.sem_seg[:seen_height, :seen_width]
    windows = np.lib.stride_tricks.sliding_window_view(mask, window.shape)
    assert (windows == window).all(axis=(2, 3)).any()
    outside = np.ones((crop_height, crop_width), bool)
    outside[:seen_height, :seen_width] = False
    assert (both.sem_seg[outside] == 255).all() and (both.image[outside] == FILL).all()
    np.testing.assert_array_equal(both.image[~outside], encoded(both.sem_seg)[~outside])


@settings(max_examples=60, deadline=None)
@given(sizes, sizes, st.integers(0, 2**31))
def test_image_and_mask_stay_aligned(height: int, width: int, seed: int) -> None:
    """Each pixel of the image still tells the label that the mask has there."""
    mask = labelled(height, width, seed)
    steps = [RandomScale(1, 1), CropOrPad((64, 64), FILL, 255), T.RandomFlip()]
    both = apply(steps, mask, seed)
    kept = both.sem_seg != 255
    np.testing.assert_array_equal(both.image[kept], encoded(both.sem_seg)[kept])
    assert (both.image[~kept] == FILL).all()
    assert kept.sum() == min(height, 64) * min(width, 64)


@pytest.mark.parametrize("seed", range(4))
def test_scaled_image_and_mask_stay_aligned(seed: int) -> None:
    """A mask of large areas and an image that tells it: only outlines are blurred."""
    mask = np.kron(labelled(5, 7, seed), np.ones((40, 40), np.uint8))
    both = apply(
        [RandomScale(0.5, 2), CropOrPad((200, 200), FILL, 255), T.RandomFlip()], mask, seed
    )
    kept = both.sem_seg != 255
    equal = (np.abs(both.image[..., 0].astype(int) - both.sem_seg) <= 1)[kept]
    assert equal.mean() > 0.9


def test_every_window_is_drawn() -> None:
    mask = np.arange(12, dtype=np.uint8).reshape(3, 4)
    corners = {
        int(apply([CropOrPad((2, 2), FILL, 255)], mask, seed).sem_seg[0, 0]) for seed in range(200)
    }
    assert corners == {0, 1, 2, 4, 5, 6}


def test_the_scale_is_a_ratio_of_the_images_own_size() -> None:
    ratios = []
    for seed in range(200):
        height, width = apply(
            [RandomScale(0.5, 2)], np.zeros((100, 150), np.uint8), seed
        ).sem_seg.shape
        assert abs(width / height - 1.5) < 0.02
        ratios.append(height / 100)
    assert 0.5 <= min(ratios) < 0.55 and 1.9 < max(ratios) <= 2
    assert abs(np.mean(ratios) - 1.25) < 0.1  # uniform


def test_masks_are_scaled_to_labels_only() -> None:
    mask = np.where(np.indices((60, 60)).sum(0) % 9 < 4, np.uint8(3), np.uint8(20))
    for seed in range(20):
        assert set(np.unique(apply([RandomScale(0.5, 2)], mask, seed).sem_seg)) <= {3, 20}


def test_points_follow_the_crop() -> None:
    np.random.seed(0)
    step = CropOrPad((4, 4), FILL, 255).get_transform(encoded(labelled(20, 30)))
    found = step.apply_coords(np.array([[step.x, step.y], [step.x + 3, step.y + 1]]))
    np.testing.assert_array_equal(found, [[0, 0], [3, 1]])


def test_a_record_becomes_a_crop(demo_root: Path) -> None:
    record = DatasetCatalog.get("demo_voc_2012_val_sem_seg")[0]
    mapper = SegmentationMapper(config(R50, "INPUT.MIN_SIZE_TRAIN", (1.0, 1.0),
                                       "INPUT.RANDOM_FLIP", "none"))  # fmt: skip
    found = mapper(record)
    with Image.open(record["file_name"]) as image, Image.open(record["sem_seg_file_name"]) as mask:
        width, height = image.size
        pixels, labels = np.array(image), np.array(mask)
    assert (found["width"], found["height"]) == (width, height)
    assert found["image"].shape == (3, 513, 513) and found["image"].dtype == torch.uint8
    assert found["sem_seg"].shape == (513, 513) and found["sem_seg"].dtype == torch.int64
    np.testing.assert_array_equal(found["sem_seg"][:height, :width], labels)
    np.testing.assert_array_equal(found["image"][:, :height, :width], pixels.transpose(2, 0, 1))
    assert (found["sem_seg"][height:] == 255).all() and (found["sem_seg"][:, width:] == 255).all()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("INPUT.MIN_SIZE_TRAIN_SAMPLING", "choice"), r"MIN_SIZE_TRAIN_SAMPLING is choice"),
        (("INPUT.MIN_SIZE_TRAIN", (640,)), r"MIN_SIZE_TRAIN \(640,\)"),
        (("INPUT.CROP.TYPE", "relative"), r"INPUT\.CROP\.TYPE is relative"),
    ],
)
def test_what_a_config_cannot_ask_for(overrides: tuple[Any, ...], message: str) -> None:
    assert len(augmentations(config(R50))) == 3
    with pytest.raises(UserError, match=message):
        augmentations(config(R50, *overrides))


def test_unreadable_files_are_named_counted_and_passed_over(
    demo_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of six: an image cut short, a mask in colours, one of another size, one that is missing."""
    records = [dict(r) for r in DatasetCatalog.get("demo_voc_2012_train_aug_sem_seg")[:6]]
    paths = [tmp_path / name for name in ("cut.jpg", "colours.png", "small.png", "missing.png")]
    paths[0].write_bytes(Path(records[0]["file_name"]).read_bytes()[:900])
    Image.open(records[1]["sem_seg_file_name"]).convert("RGB").save(paths[1])
    Image.new("L", (9, 9)).save(paths[2])
    records[0]["file_name"] = str(paths[0])
    for record, path in zip(records[1:4], paths[1:], strict=True):
        record["sem_seg_file_name"] = str(path)
    DatasetCatalog.register("broken_masks", lambda: records)
    try:
        cfg = config("demo_voc_R_18_FCN", "DATASETS.TRAIN", ("broken_masks",),
                     "DATALOADER.NUM_WORKERS", 0, "SOLVER.IMS_PER_BATCH", 2)  # fmt: skip
        stream = Stream(cfg, 0)
        with caplog.at_level(logging.WARNING, "detection"):
            names = {x["file_name"] for batch in itertools.islice(stream, 12) for x in batch}
    finally:
        DatasetCatalog.remove("broken_masks")
    assert names == {r["file_name"] for r in records[4:]}
    skipped = [m for m in caplog.messages if m.startswith("skipped an unreadable image")]
    assert len(skipped) == stream.unreadable >= 16
    assert all(any(str(path) in m for m in skipped) for path in paths)
