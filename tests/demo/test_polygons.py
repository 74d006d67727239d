"""Polygons against pycocotools' rasteriser: not a pixel differs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from demo import polygons, sampling


def rasterise(parts: list[list[float]], mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    height, width = mask.shape
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(parts, height, width))) == 1


def check(mask: NDArray[np.bool_]) -> None:
    parts = polygons.from_mask(mask)
    np.testing.assert_array_equal(rasterise(parts, mask), mask)
    for part in parts:
        corners = np.reshape(part, (-1, 2))
        assert len(corners) >= 3
        assert polygons._signed_area(corners) > 0
        assert corners.min() >= 0
        assert (corners.max(axis=0) <= mask.shape[::-1]).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 24), st.integers(1, 24), st.floats(0.05, 0.95), st.integers(0, 999))
def test_random_masks(height: int, width: int, density: float, seed: int) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < density
    if mask.any():
        check(mask)
    else:
        assert polygons.from_mask(mask) == []


@pytest.mark.parametrize("index", range(25))
def test_scenes(index: int) -> None:
    for instance in sampling.several(sampling.generator(1, "polygons", index)).instances:
        check(instance.mask)


def test_a_ring_is_cut_through_its_hole() -> None:
    mask = np.ones((20, 30), bool)
    mask[6:14, 8:20] = False
    assert len(polygons.from_mask(mask)) == 2
    check(mask)


def test_a_rectangle_needs_few_corners() -> None:
    mask = np.zeros((40, 60), bool)
    mask[10:30, 5:50] = True
    (part,) = polygons.from_mask(mask)
    assert len(part) == 2 * 8  # each right angle is cut half a pixel from the corner
    assert set(part[0::2]) == {5, 5.5, 49.5, 50}
    assert set(part[1::2]) == {10, 10.5, 29.5, 30}
