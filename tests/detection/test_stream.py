"""The images of a fine-tuning: Detectron2's order, the same from any iteration on."""

import copy
import itertools
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.data.build import build_batch_data_loader
from detectron2.data.common import DatasetFromList
from detectron2.data.samplers import TrainingSampler
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from common.errors import UserError
from detection.mapper import TrainMapper
from detection.stream import ORDER, Stream, batches, derived_seed
from segmentation.mapper import SegmentationMapper
from tests.detection.helpers import config, warnings
from tests.detection.small_datasets import replaced

CHANGED = "demo_changed"


def small(*overrides: Any) -> Any:
    """Batches of two small images of the embedded data."""
    fixed = ("SOLVER.IMS_PER_BATCH", 2, "INPUT.MIN_SIZE_TRAIN", (32, 48))
    return config("demo_R_18_FPN", *fixed, "DATALOADER.NUM_WORKERS", 0, *overrides)


def stream_of(cfg: Any, seed: int, workers: int | None = None) -> Stream:
    return Stream(cfg, TrainMapper(cfg), seed, workers)


def first(stream: Stream, batches: int) -> list[dict[str, Any]]:
    """The images of the first batches."""
    return [image for batch in itertools.islice(stream, batches) for image in batch]


def same(here: dict[str, Any], there: dict[str, Any]) -> bool:
    """True if two mapped images are one, with the same scale, flip and boxes."""
    a, b = (item["instances"].gt_boxes.tensor for item in (here, there))
    names = here["file_name"] == there["file_name"]
    return names and torch.equal(here["image"], there["image"]) and torch.equal(a, b)


@settings(deadline=None)
@given(
    wide=st.lists(st.booleans(), min_size=1, max_size=30),
    size=st.integers(1, 5),
    grouping=st.booleans(),
    start=st.integers(0, 40),
)
def test_batches_are_detectron2s_from_any_one_on(
    wide: list[bool], size: int, grouping: bool, start: int
) -> None:
    records = [{"width": 3 if w else 2, "height": 2, "id": i} for i, w in enumerate(wide)]
    sampler = TrainingSampler(len(wide), seed=5)
    theirs = build_batch_data_loader(
        DatasetFromList(records), sampler, size, aspect_ratio_grouping=grouping
    )
    expected = [[r["id"] for r in batch] for batch in itertools.islice(theirs, start, start + 20)]
    ours = batches(sampler, size, wide if grouping else None)
    found = list(itertools.islice(ours, start, start + 20))
    assert [[index for _, index in batch] for batch in found] == expected
    places = [place for batch in found for place, _ in batch]
    assert len(set(places)) == len(places)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("grouping", [True, False])
def test_a_stream_goes_on_with_what_would_have_come(workers: int, grouping: bool) -> None:
    whole = stream_of(small("DATALOADER.ASPECT_RATIO_GROUPING", grouping), 3)
    expected, drawn = [], []
    for batch in itertools.islice(whole, 9):
        expected.append(batch)
        drawn.append(torch.rand(1).item())  # as a model would, in this iteration
    later = stream_of(small("DATALOADER.ASPECT_RATIO_GROUPING", grouping), 3, workers)
    later.start = 5
    torch.rand(7)
    iterator = iter(later)
    for batch, number in zip(expected[5:], drawn[5:], strict=True):
        assert all(itertools.starmap(same, zip(next(iterator), batch, strict=True)))
        assert torch.rand(1).item() == number
    assert len(set(drawn)) == len(drawn)


def test_another_seed_has_another_order_and_other_scales() -> None:
    here, there = (first(stream_of(small(), seed), 50) for seed in (0, 1))
    assert [x["file_name"] for x in here] != [x["file_name"] for x in there]
    by_name = {x["file_name"]: x for x in here}
    both = [(x, by_name[x["file_name"]]) for x in there if x["file_name"] in by_name]
    different = [a for a, b in both if not same(a, b)]
    assert len(both) > 20 and len(different) > len(both) / 2  # two scales, flipped or not


def test_a_seeds_order_is_the_same_on_every_detectron2() -> None:
    cfg, count = small(), len(DatasetCatalog.get("demo_coco_train"))
    found = list(itertools.islice(stream_of(cfg, 3)._sampler, count))
    drawn = np.random.RandomState(derived_seed(3, ORDER)).randint(2**31)  # 0.6's own seed
    order = torch.randperm(count, generator=torch.Generator().manual_seed(drawn))
    assert found == order.tolist() and cfg.SEED == small().SEED


def test_an_image_seen_again_is_not_the_same(registered: list[str]) -> None:
    records = DatasetCatalog.get("demo_coco_train")[:1]
    DatasetCatalog.register(CHANGED, lambda: records)
    registered.append(CHANGED)
    images = first(stream_of(small("DATASETS.TRAIN", (CHANGED,)), 0), 20)
    assert len({(x["image"].shape, float(x["image"].float().mean())) for x in images}) >= 2
    sums = {(x["image"].shape, int(x["image"][..., :9].sum())) for x in images}
    assert len(sums) == 4  # two scales, flipped or not


def test_images_of_unknown_sizes_cannot_be_grouped() -> None:
    cfg = config("demo_voc_R_18_FCN", "DATALOADER.ASPECT_RATIO_GROUPING", True)
    with pytest.raises(UserError, match=r"demo_voc_2012_train_aug_sem_seg does not tell the sizes"):
        Stream(cfg, SegmentationMapper(cfg), 0)


@pytest.fixture
def broken(tmp_path: Path, registered: list[str]) -> list[str]:
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
    DatasetCatalog.register(CHANGED, lambda: records)
    registered.append(CHANGED)
    return names


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_images_are_named_counted_and_passed_over(
    broken: list[str], workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    stream = stream_of(small("DATASETS.TRAIN", (CHANGED,)), 0, workers)
    with caplog.at_level(logging.WARNING, "detection"):
        images = first(stream, 12)
    assert len(images) == 24
    for image in images:
        assert image["file_name"] not in broken
        with Image.open(image["file_name"]) as original:
            assert (image["width"], image["height"]) == original.size
    assert stream.unreadable >= 16  # every image was asked for four times
    if workers == 0:  # another process's log does not come here
        skipped = [m for m in caplog.messages if m.startswith("skipped an unreadable image")]
        assert len(skipped) == stream.unreadable
        assert {name for name in broken if any(name in m for m in skipped)} == set(broken)
    half, again = (stream_of(small("DATASETS.TRAIN", (CHANGED,)), 0) for _ in range(2))
    first(half, 9)
    again.start = 9
    again.load_state_dict(half.state_dict())
    assert all(itertools.starmap(same, zip(first(again, 3), images[18:], strict=True)))
    assert again.unreadable == stream.unreadable > half.unreadable > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"segmentation": None}, "an annotation that cannot be used: 'segmentation'"),
        (
            {"segmentation": {"size": [9, 9], "counts": b"4PPPPP1"}},
            "an annotation that cannot be used: Invalid RLE mask representation",
        ),
    ],
)
def test_an_image_with_a_broken_annotation_is_passed_over_too(
    registered: list[str], change: dict[str, Any], message: str,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    records = [copy.deepcopy(r) for r in DatasetCatalog.get("demo_coco_train")[:2]]
    records[0]["annotations"][-1] = replaced(records[0]["annotations"][-1], change)
    DatasetCatalog.register(CHANGED, lambda: records)
    registered.append(CHANGED)
    stream = stream_of(small("DATASETS.TRAIN", (CHANGED,), "INPUT.MASK_FORMAT", "bitmask"), 0)
    with caplog.at_level(logging.WARNING, "detection"):
        images = first(stream, 4)
    assert {x["file_name"] for x in images} == {records[1]["file_name"]}
    assert stream.unreadable == len(warnings(caplog)) >= 4
    start = f"skipped an unreadable image: {records[0]['file_name']} ({message}"
    assert all(warning.startswith(start) for warning in warnings(caplog))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_data_set_without_a_readable_image_is_an_error(
    registered: list[str], workers: int
) -> None:
    (record,) = DatasetCatalog.get("demo_coco_train")[:1]
    DatasetCatalog.register(CHANGED, lambda: [record | {"file_name": "/none.jpg"}])
    registered.append(CHANGED)
    stream = stream_of(small("DATASETS.TRAIN", (CHANGED,)), 0, workers)
    wanted = (
        r"^100 images in a row cannot be read, such as /none\.jpg \(.*No such file or "
        r"directory.*\); is the data set whole\?"
    )
    with pytest.raises(UserError, match=wanted):
        first(stream, 1)
