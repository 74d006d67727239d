"""Scenes: textured shapes that hide one another, on a textured ground.

Each image has a random stream of its own, named after it, whatever else is drawn.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from demo import shapes, textures
from demo.classes import CLASSES, TABLE

JPEG_QUALITY = 90
MAX_OBJECTS = 5
MIN_VISIBLE = 0.4  # share of an object's area that stays in view
MIN_PIXELS = 48
TRIES = 20
TEXTURE_LOYALTY = 0.7  # how often an object is sure to wear the texture of its class

PATTERNED_GROUNDS = 0.3  # share of grounds with a faint pattern
LUMINANCE = np.array([0.299, 0.587, 0.114])  # weights of RGB

Mask = NDArray[np.bool_]
Colours = NDArray[np.float64]


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
        columns, rows = (np.flatnonzero(self.mask.any(axis=axis)) for axis in (0, 1))
        return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


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
    """One object of class ``label`` that fills a good part of an image of 96 to 128 pixels."""
    height, width = rng.integers(96, 129, size=2).tolist()
    return _draw(rng, height, width, [label], (0.5, 0.8), margin=0.35)


def several(rng: np.random.Generator) -> Scene:
    """One to five objects of random classes and sizes in an image of 112 to 200 pixels a side."""
    short, long = int(rng.integers(112, 145)), int(rng.integers(144, 201))
    height, width = (short, long) if rng.random() < 0.7 else (long, short)
    labels = rng.integers(len(CLASSES), size=rng.integers(1, MAX_OBJECTS + 1)).tolist()
    return _draw(rng, height, width, labels, (0.14, 0.5))


def save_jpeg(path: Path, image: NDArray[np.uint8]) -> None:
    """Write ``image`` (height, width, 3); the folder must exist."""
    Image.fromarray(image).save(path, quality=JPEG_QUALITY)


def _draw(
    rng: np.random.Generator,
    height: int,
    width: int,
    labels: Sequence[int],
    sizes: tuple[float, float],
    margin: float = 0.12,
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
            outline = shapes.place(rng, TABLE[label].name, float(size), (x, y))
            cover = shapes.coverage(outline, height, width)
            after = _add(seen, label, outline, cover >= 0.5)
            if after is not None:
                seen = after
                _paint(rng, canvas, cover, label, float(size))
                break
    if not seen and labels:
        return _draw(rng, height, width, labels, sizes, margin)
    grain = 0.015 * rng.standard_normal(canvas.shape, dtype=np.float32)
    canvas *= _light(rng, height, width)
    canvas += grain
    return Scene((np.clip(canvas, 0, 1) * 255).round().astype(np.uint8), tuple(seen))


def _add(seen: list[Instance], label: int, outline: Colours, mask: Mask) -> list[Instance] | None:
    """``seen`` with one more object in front; None where that would hide too much."""
    height, width = mask.shape
    truncated = bool(
        outline.min() < 0 or outline[:, 0].max() > width or outline[:, 1].max() > height
    )
    whole = shapes.area(outline)
    after = [Instance(label, mask, min(1.0, float(mask.sum() / whole)), truncated)]
    for old in reversed(seen):
        left = old.mask & ~mask
        share = old.visible * float(left.sum() / old.mask.sum())
        after.insert(0, Instance(old.label, left, share, old.truncated))
    enough = all(one.visible >= MIN_VISIBLE and one.mask.sum() >= MIN_PIXELS for one in after)
    return after if enough and after[-1].visible >= 0.6 else None


def _ground(rng: np.random.Generator, height: int, width: int) -> Colours:
    """A ground of clouds in two close colours, often with a faint pattern over them."""
    low = textures.colour(rng, (0.05, 0.55), (0.25, 0.95))
    high = np.clip(low + rng.uniform(-0.22, 0.22, size=3) + rng.choice([-0.12, 0.12]), 0, 1)
    ground = textures.mix(textures.clouds(rng, height, width, rng.uniform(12, 60)), low, high)
    if rng.random() < PATTERNED_GROUNDS:
        name = str(rng.choice(textures.TEXTURES))
        faint = textures.pattern(rng, name, height, width, rng.uniform(10, 40))
        ground = ground + rng.uniform(0.05, 0.12) * (faint[..., None] - 0.5)
    return np.clip(ground, 0, 1)


def _paint(
    rng: np.random.Generator, canvas: Colours, cover: Colours, label: int, size: float
) -> None:
    """Put an object's shadow and the object itself on ``canvas``."""
    reach = max(1, round(size / 12))
    window = _window(cover, 4 * reach)
    canvas, cover = canvas[window], cover[window]  # views: what is painted shows in the whole
    height, width = cover.shape
    shadow = np.pad(cover, ((reach, 0), (reach, 0)))[:height, :width]
    blurred = Image.fromarray((shadow * 255).astype(np.uint8)).filter(
        ImageFilter.GaussianBlur(max(1.0, size / 12))
    )
    shaded = canvas * (1 - 0.45 / 255 * np.asarray(blurred, dtype=np.float64)[..., None])

    loyal = rng.random() < TEXTURE_LOYALTY
    name = TABLE[label].texture if loyal else str(rng.choice(textures.TEXTURES))
    field = textures.pattern(rng, name, height, width, max(5.0, size * rng.uniform(0.16, 0.3)))
    low, high = _object_colours(rng, canvas[cover >= 0.5].mean(axis=0))
    body = textures.mix(field, low, high) * _light(rng, height, width)
    canvas[:] = shaded + cover[..., None] * (np.clip(body, 0, 1) - shaded)


def _window(cover: Colours, margin: int) -> tuple[slice, slice]:
    """The rows and columns that ``cover`` reaches, and ``margin`` pixels more on each side."""
    rows, columns = (np.flatnonzero(cover.any(axis=axis)) for axis in (1, 0))
    return (
        slice(max(0, rows[0] - margin), rows[-1] + margin + 1),
        slice(max(0, columns[0] - margin), columns[-1] + margin + 1),
    )


def _object_colours(rng: np.random.Generator, ground: Colours) -> tuple[Colours, Colours]:
    """A dark and a light colour, neither of which is the ground's."""
    while True:
        dark = textures.colour(rng, (0.2, 0.95), (0.1, 0.6))
        light = textures.colour(rng, (0.1, 0.8), (0.7, 1.0))
        off = min(float(np.linalg.norm(one - ground)) for one in (dark, light))
        if float((light - dark) @ LUMINANCE) > 0.3 and off > 0.3:
            return dark, light


def _light(rng: np.random.Generator, height: int, width: int) -> Colours:
    """A gradient of brightness (height, width, 1) about 1, from a random side."""
    y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.18)
    return (1 + strength * (np.cos(angle) * x + np.sin(angle) * y))[..., None]
