"""The COCO files, as pycocotools reads, measures and rasterises them: not a pixel differs."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from demo import CLASSES, COCO_IDS, Counts
from demo.coco import polygons


@pytest.fixture(scope="module", params=["train", "val"])
def split(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def coco(root: Path, split: str) -> COCO:
    return COCO(root / "coco" / "annotations" / f"instances_{split}2017.json")


def test_document(coco: COCO, counts: Counts, split: str) -> None:
    assert set(coco.dataset) == {"info", "licenses", "images", "annotations", "categories"}
    assert len(coco.getImgIds()) == getattr(counts, f"coco_{split}")
    assert [row["name"] for row in coco.loadCats(sorted(coco.getCatIds()))] == list(CLASSES)
    assert tuple(sorted(coco.getCatIds())) == COCO_IDS
    assert COCO_IDS[-1] > len(COCO_IDS)  # not contiguous
    assert len(coco.anns) == len(coco.dataset["annotations"])  # the ids are unique


def test_images(coco: COCO, root: Path, split: str) -> None:
    shapes = set()
    for row in coco.dataset["images"]:
        with Image.open(root / "coco" / f"{split}2017" / row["file_name"]) as image:
            assert (image.size, image.mode) == ((row["width"], row["height"]), "RGB")
            shapes.add(image.size)
        assert 1 <= len(coco.getAnnIds(row["id"])) <= 5
    assert len(shapes) > 4


def test_areas_and_boxes_agree_with_pycocotools(coco: COCO) -> None:
    for annotation in coco.dataset["annotations"]:
        rle = coco.annToRLE(annotation)
        assert annotation["iscrowd"] == 0
        assert annotation["area"] == coco_mask.area(rle)
        assert annotation["bbox"] == coco_mask.toBbox(rle).tolist()
        assert all(len(polygon) >= 6 for polygon in annotation["segmentation"])


def rasterise(parts: list[list[float]], mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    height, width = mask.shape
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(parts, height, width))) == 1


def check(mask: NDArray[np.bool_]) -> None:
    parts = polygons(mask)
    np.testing.assert_array_equal(rasterise(parts, mask), mask)
    for part in parts:
        corners = np.reshape(part, (-1, 2))
        assert len(corners) >= 3
        assert corners.min() >= 0
        assert (corners.max(axis=0) <= mask.shape[::-1]).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 24), st.integers(1, 24), st.floats(0.05, 0.95), st.integers(0, 999))
def test_random_masks(height: int, width: int, density: float, seed: int) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < density
    if mask.any():
        check(mask)
    else:
        assert polygons(mask) == []


def test_a_ring_is_cut_through_its_hole() -> None:
    mask = np.ones((20, 30), bool)
    mask[6:14, 8:20] = False
    assert len(polygons(mask)) == 2
    check(mask)


def test_a_rectangle_needs_few_corners() -> None:
    mask = np.zeros((40, 60), bool)
    mask[10:30, 5:50] = True
    (part,) = polygons(mask)
    assert sorted(zip(part[0::2], part[1::2], strict=True)) == [
        (5.1, 10.1),  # a tenth of a pixel inside
        (5.1, 29.9),
        (49.9, 10.1),
        (49.9, 29.9),
    ]
