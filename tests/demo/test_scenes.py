"""Geometric areas of shapes, visible objects of scenes, and colours that tell no class."""

import numpy as np
import pytest

from demo import drawing, scenes
from demo.classes import TABLE


def scene(index: int) -> scenes.Scene:
    return scenes.several(scenes.generator(2, "scenes", index))


@pytest.mark.parametrize("seed", range(8))
def test_outlines_cover_their_size(seed: int) -> None:
    outline = drawing.place(np.random.default_rng(seed), 40.0, (64.0, 50.0))
    covered = drawing.coverage(outline, 100, 128)
    assert drawing.area(outline) == pytest.approx(40.0**2)  # stretch and skew keep the area
    assert covered.sum() == pytest.approx(40.0**2, rel=0.03)


def test_coverage_of_a_half_pixel() -> None:
    outline = np.array([[1.01, 1.01], [3.49, 1.01], [3.49, 1.99], [1.01, 1.99]])
    covered = drawing.coverage(outline, 3, 5)
    expected = np.array([[0, 0, 0, 0, 0], [0, 1, 1, 0.5, 0], [0, 0, 0, 0, 0]])
    assert np.abs(covered - expected).max() < 0.01


@pytest.mark.parametrize("index", range(20))
def test_instances_are_disjoint_visible_and_boxed(index: int) -> None:
    drawn = scene(index)
    masks = np.stack([one.mask for one in drawn.instances])
    assert 1 <= len(masks) <= scenes.MAX_OBJECTS
    assert masks.shape[1:] == drawn.image.shape[:2]
    assert masks.sum(axis=0).max() == 1
    for instance in drawn.instances:
        assert instance.mask.sum() >= scenes.MIN_PIXELS
        assert scenes.MIN_VISIBLE <= instance.visible <= 1
        x0, y0, x1, y1 = instance.box
        assert instance.mask[y0:y1, x0:x1].sum() == instance.mask.sum()
        assert instance.mask[[y0, y1 - 1]].any(axis=1).all()
        assert instance.mask[:, [x0, x1 - 1]].any(axis=0).all()


def test_streams_differ_by_name_and_repeat() -> None:
    np.testing.assert_array_equal(scene(0).image, scene(0).image)
    assert not np.array_equal(scene(0).image[:100, :100], scene(1).image[:100, :100])


def test_mean_colour_does_not_tell_the_class() -> None:
    def colour(split: str, label: int, index: int) -> np.ndarray:
        scene = scenes.single(scenes.generator(3, split, label, index), label)
        return np.asarray(scene.image.mean(axis=(0, 1)))

    def colours(split: str) -> np.ndarray:
        """Mean colours (class, image, RGB)."""
        labels = range(len(TABLE))
        return np.array([[colour(split, label, i) for i in range(25)] for label in labels])

    means = colours("train").mean(axis=1)
    distance = np.linalg.norm(colours("val")[:, :, None] - means, axis=-1)
    accuracy = (distance.argmin(axis=-1) == np.arange(len(TABLE))[:, None]).mean()
    assert accuracy < 0.35  # chance: 0.12
