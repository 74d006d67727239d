"""Training goes on without the images that cannot be read."""

import logging
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, DatasetMapper
from PIL import Image

from detection.compat import train_loader
from detection.mapper import SkippingMapper
from tests.detection.helpers import config

NAME = "demo_with_broken_images"


@pytest.fixture
def broken(tmp_path: Path, demo_root: Path) -> Iterator[list[str]]:
    """Four of six images: cut short, not an image, missing, of another size than annotated."""
    records = [dict(r) for r in DatasetCatalog.get("demo_coco_train")[:6]]
    names = [str(tmp_path / f"{name}.jpg") for name in ("cut", "text", "missing", "small")]
    for record, name in zip(records, names, strict=False):
        data = Path(record["file_name"]).read_bytes()
        record["file_name"] = name
        if "small" in name:
            Image.new("RGB", (9, 9)).save(name)
        elif "missing" not in name:
            Path(name).write_bytes(data[: len(data) // 2] if "cut" in name else b"not an image")
    DatasetCatalog.register(NAME, lambda: records)
    yield names
    DatasetCatalog.remove(NAME)


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_images_are_named_counted_and_passed_over(
    broken: list[str], workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    random.seed(0)
    cfg = config("demo_R_18_FPN", "DATASETS.TRAIN", (NAME,), "DATALOADER.NUM_WORKERS", workers,
                 "SOLVER.IMS_PER_BATCH", 2, "INPUT.MIN_SIZE_TRAIN", (32,))  # fmt: skip
    mapper = SkippingMapper(DatasetMapper(cfg))
    with caplog.at_level(logging.WARNING, "detection"):
        batches = iter(train_loader(cfg, mapper))
        images = [image for _ in range(12) for image in next(batches)]
    assert len(images) == 24
    for image in images:
        assert image["file_name"] not in broken
        with Image.open(image["file_name"]) as original:
            assert (image["width"], image["height"]) == original.size
    assert mapper.unreadable >= 4  # every image was asked for at least once
    if workers == 0:  # another process's log does not come here
        skipped = [m for m in caplog.messages if m.startswith("skipped an unreadable image")]
        assert len(skipped) == mapper.unreadable
        assert all(any(name in m for m in skipped) for name in broken)
