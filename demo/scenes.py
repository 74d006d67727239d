"""Scenes: textured shapes that hide one another, on a cloudy ground.

A texture makes the class; outline, place, size and ground are free. Hues and a texture's direction
vary no more than the views of a pre-training vary or forgive them, or a short one would learn what
tells images apart in the place of the classes.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from demo import drawing
from demo.classes import TABLE
from demo.drawing import Floats

MAX_OBJECTS = 5
MIN_VISIBLE = 0.4  # share of an object's area that stays in view
MIN_PIXELS = 48
TRIES = 20

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Instance:
    """One object of a scene."""

    label: int  # index into demo.classes.TABLE
    mask: Mask  # the pixels in which it is seen (height, width)
    area: float  # of all of it, in pixels: what is hidden or beyond the image too
    truncated: bool  # True if it reaches beyond the image

    @property
    def visible(self) -> float:
        """The share of its area that is seen."""
        return float(self.mask.sum() / self.area)

    @property
    def box(self) -> tuple[int, int, int, int]:
        """(x0, y0, x1, y1) of the visible part, in pixels; x1 and y1 are exclusive."""
        x, y, width, height = cv2.boundingRect(self.mask.astype(np.uint8))
        return x, y, x + width, y + height


@dataclass(frozen=True)
class Scene:
    """An image (height, width, 3) of uint8 RGB, and what is seen in it, from back to front."""

    image: NDArray[np.uint8]
    instances: Sequence[Instance]


def generator(seed: int, *name: str | int) -> Generator:
    """The random stream of the image called ``name``, whatever else is drawn from ``seed``."""
    return np.random.default_rng([seed, zlib.crc32("/".join(map(str, name)).encode())])


def single(rng: Generator, label: int) -> Scene:
    """One object of class ``label`` that fills a good part of an image of 60 to 76 pixels."""
    height, width = rng.integers(60, 77, size=2).tolist()
    return _draw(rng, height, width, [label], sizes=[0.6, 0.9], margin=0.4)


def several(rng: Generator) -> Scene:
    """One to five objects of random classes and sizes in an image of 112 to 200 pixels a side."""
    short, long = int(rng.integers(112, 145)), int(rng.integers(144, 201))
    height, width = (short, long) if rng.random() < 0.7 else (long, short)
    labels = rng.integers(len(TABLE), size=rng.integers(1, MAX_OBJECTS + 1)).tolist()
    return _draw(rng, height, width, labels, sizes=[0.2, 0.5], margin=0.12)


def save_jpeg(path: Path, scene: Scene) -> None:
    """Write the image of ``scene``, in a folder that is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(scene.image).save(path, quality=90)


def _draw(
    rng: Generator, height: int, width: int, labels: list[int], sizes: list[float], margin: float
) -> Scene:
    """Draw objects of classes from back to front; leave out those that find no place.

    ``sizes``, a range of roots of areas, are shares of the short side; ``margin`` is the share of a
    side that an object's centre stays away from its ends.
    """
    low, high = (drawing.colour(rng, 0.1, 0.3, value) for value in (0.5, 0.7))
    canvas = drawing.mix(drawing.clouds(rng, height, width, rng.uniform(12, 60)), low, high)
    seen: list[Instance] = []
    for label in labels:
        for _ in range(TRIES):
            size = min(height, width) * np.exp(rng.uniform(*np.log(sizes)))
            x, y = rng.uniform(margin, 1 - margin, size=2) * (width, height)
            outline = drawing.place(rng, size, (x, y))
            cover = drawing.coverage(outline, height, width)
            if after := _add(seen, label, outline, cover >= 0.5):
                seen = after
                canvas = _paint(rng, canvas, cover, label, size)
                break
    canvas *= drawing.light(rng, height, width)
    canvas += 0.015 * rng.standard_normal(canvas.shape, dtype=np.float32)
    return Scene((np.clip(canvas, 0, 1) * 255).round().astype(np.uint8), seen)


def _add(seen: list[Instance], label: int, outline: Floats, mask: Mask) -> list[Instance]:
    """``seen`` and one more object in front of them; empty if that would hide too much."""
    truncated = bool((outline < 0).any() or (outline > mask.shape[::-1]).any())
    area = max(drawing.area(outline), mask.sum())  # never more than all of it is seen
    new = Instance(label, mask, area, truncated)
    after = [*(replace(old, mask=old.mask & ~mask) for old in seen), new]
    enough = all(one.visible >= MIN_VISIBLE and one.mask.sum() >= MIN_PIXELS for one in after)
    return after if enough and new.visible >= 0.6 else []


def _paint(rng: Generator, canvas: Floats, cover: Floats, label: int, size: float) -> Floats:
    """``canvas`` (height, width, 3) with an object's shadow and the object itself."""
    height, width = cover.shape
    reach = max(1.0, size / 12)
    moved = cv2.warpAffine(cover, np.array([[1, 0, reach], [0, 1, reach]]), (width, height))
    shaded = canvas * (1 - 0.45 * cv2.GaussianBlur(moved, (0, 0), reach))[..., None]

    period = rng.uniform(7, 14)
    bright = drawing.texture(rng, TABLE[label].name, height, width, period)
    colours = drawing.colour(rng, 0.6, 0.7, 0.3), drawing.colour(rng, 0.6, 0.2, 0.9)
    body = drawing.mix(bright, *colours) * drawing.light(rng, height, width)
    return drawing.mix(cover, shaded, np.clip(body, 0, 1))
