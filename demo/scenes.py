"""Scenes: textured shapes that hide one another, on a cloudy ground.

A texture makes the class; outline, place, size and ground are free. Hues, and the direction of a
texture, vary no more than the views of a pre-training vary or forgive them: what tells images apart
for longer than that is what a pre-training of few steps learns in the place of the classes. Each
image has a random stream of its own, named after it, whatever else is drawn.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from demo import drawing
from demo.classes import CLASSES, TABLE
from demo.drawing import Floats

JPEG_QUALITY = 90
MAX_OBJECTS = 5
MIN_VISIBLE = 0.4  # share of an object's area that stays in view
MIN_PIXELS = 48
TRIES = 20
LUMINANCE = np.array([0.299, 0.587, 0.114])  # weights of RGB

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Instance:
    """One object of a scene."""

    label: int  # index into demo.classes.TABLE
    mask: Mask  # the pixels in which it is seen (height, width)
    visible: float  # the share of its area that is seen
    truncated: bool  # True if it reaches beyond the image

    @property
    def box(self) -> tuple[int, int, int, int]:
        """(x0, y0, x1, y1) of the visible part, in pixels; x1 and y1 are exclusive."""
        x, y, width, height = cv2.boundingRect(self.mask.astype(np.uint8))
        return x, y, x + width, y + height


@dataclass(frozen=True)
class Scene:
    """An image (height, width, 3) of uint8 RGB, and what is seen in it, from back to front."""

    image: NDArray[np.uint8]
    instances: tuple[Instance, ...]


def generator(seed: int, *name: str | int) -> np.random.Generator:
    """The random stream of the image called ``name`` in the set of ``seed``."""
    key = zlib.crc32("/".join(str(part) for part in name).encode())
    return np.random.default_rng([seed, key])


def single(rng: np.random.Generator, label: int) -> Scene:
    """One object of class ``label`` that fills a good part of an image of 60 to 76 pixels."""
    height, width = rng.integers(60, 77, size=2).tolist()
    return _draw(rng, height, width, [label], (0.6, 0.9), margin=0.4)


def several(rng: np.random.Generator) -> Scene:
    """One to five objects of random classes and sizes in an image of 112 to 200 pixels a side."""
    short, long = int(rng.integers(112, 145)), int(rng.integers(144, 201))
    height, width = (short, long) if rng.random() < 0.7 else (long, short)
    labels = rng.integers(len(CLASSES), size=rng.integers(1, MAX_OBJECTS + 1)).tolist()
    return _draw(rng, height, width, labels, (0.2, 0.5), margin=0.12)


def save_jpeg(path: Path, image: NDArray[np.uint8]) -> None:
    """Write ``image`` (height, width, 3); the folder must exist."""
    Image.fromarray(image).save(path, quality=JPEG_QUALITY)


def _draw(
    rng: np.random.Generator,
    height: int,
    width: int,
    labels: Sequence[int],
    sizes: tuple[float, float],
    margin: float,
) -> Scene:
    """Draw objects of classes, from back to front, with sizes (roots of areas) of a range.

    Sizes are shares of the short side; ``margin`` is the share of a side that an object's centre
    stays away from its ends. An object that would leave too little of itself or of another one in
    view is left out; the first one, at the back, never is.
    """
    canvas = _ground(rng, height, width)
    seen: list[Instance] = []
    for label in labels:
        for _ in range(TRIES):
            size = min(height, width) * np.exp(rng.uniform(*np.log(sizes)))
            x, y = rng.uniform(margin, 1 - margin, size=2) * (width, height)
            outline = drawing.place(rng, float(size), (x, y))
            cover = drawing.coverage(outline, height, width)
            after = _add(seen, label, outline, cover >= 0.5)
            if after is not None:
                seen = after
                _paint(rng, canvas, cover, label, float(size))
                break
    if not seen:
        return _draw(rng, height, width, labels, sizes, margin)
    canvas *= drawing.light(rng, height, width)
    canvas += 0.015 * rng.standard_normal(canvas.shape, dtype=np.float32)
    return Scene((np.clip(canvas, 0, 1) * 255).round().astype(np.uint8), tuple(seen))


def _add(seen: list[Instance], label: int, outline: Floats, mask: Mask) -> list[Instance] | None:
    """``seen`` with one more object in front; None where that would hide too much."""
    height, width = mask.shape
    truncated = bool((outline < 0).any() or (outline > (width, height)).any())
    visible = min(1.0, float(mask.sum() / drawing.area(outline)))
    after = [Instance(label, mask, visible, truncated)]
    for old in reversed(seen):
        left = old.mask & ~mask
        share = old.visible * float(left.sum() / old.mask.sum())
        after.insert(0, Instance(old.label, left, share, old.truncated))
    enough = all(one.visible >= MIN_VISIBLE and one.mask.sum() >= MIN_PIXELS for one in after)
    return after if enough and visible >= 0.6 else None


def _ground(rng: np.random.Generator, height: int, width: int) -> Floats:
    """A ground of clouds in two close colours."""
    low, high = (drawing.colour(rng, 0.1, 0.3, value) for value in (0.5, 0.7))
    return drawing.mix(drawing.clouds(rng, height, width, rng.uniform(12, 60)), low, high)


def _paint(
    rng: np.random.Generator, canvas: Floats, cover: Floats, label: int, size: float
) -> None:
    """Put an object's shadow and the object itself on ``canvas``."""
    height, width = cover.shape
    reach = max(1.0, size / 12)
    moved = cv2.warpAffine(cover, np.array([[1, 0, reach], [0, 1, reach]]), (width, height))
    shaded = canvas * (1 - 0.45 * cv2.GaussianBlur(moved, (0, 0), reach))[..., None]

    period = rng.uniform(7, 14)
    field = drawing.pattern(rng, TABLE[label].name, height, width, period)
    dark, bright = drawing.colour(rng, 0.6, 0.7, 0.3), drawing.colour(rng, 0.6, 0.2, 0.9)
    body = np.clip(drawing.mix(field, dark, bright) * drawing.light(rng, height, width), 0, 1)
    canvas[:] = shaded + cover[..., None] * (body - shaded)
