"""Textures: random patterns of values 0 to 1, and the colours they mix."""

import colorsys
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Field = NDArray[np.float64]
TAU = 2 * np.pi


def _soft(value: Field, sharpness: float = 4.0) -> Field:
    """A step at 0 from 0 to 1, blurred so that it shows no jagged edges."""
    return np.clip(0.5 + sharpness * value, 0, 1)


def _bricks(u: Field, v: Field) -> Field:
    along = u / 2 + 0.5 * (np.floor(v) % 2)
    to_joint = np.minimum(1 - 2 * np.abs(along % 1 - 0.5), 0.5 - np.abs(v % 1 - 0.5))
    return _soft(to_joint - 0.1, 8)


PATTERNS: dict[str, Callable[[Field, Field], Field]] = {
    "stripes": lambda u, v: _soft(np.sin(TAU * u)),
    "checks": lambda u, v: _soft(np.sin(TAU * u / 2) * np.sin(TAU * v / 2)),
    "dots": lambda u, v: _soft(0.32 - np.hypot(u % 1 - 0.5, v % 1 - 0.5), 8),
    "bricks": _bricks,
    "zigzag": lambda u, v: _soft(np.sin(TAU * (u + 0.8 * np.abs(v / 2 % 1 - 0.5) * 2))),
    "rings": lambda u, v: _soft(np.sin(TAU * np.hypot(u, v))),
}
TEXTURES = (*PATTERNS, "blotches")


def noise(rng: np.random.Generator, height: int, width: int, period: float) -> Field:
    """Smooth noise (height, width) of values 0 to 1 whose hills are ``period`` pixels apart."""
    rows, columns = (max(2, round(side / period) + 2) for side in (height, width))
    coarse = Image.fromarray(rng.random((rows, columns), dtype=np.float32))
    smooth = coarse.resize((width, height), Image.Resampling.BICUBIC)
    return np.clip(np.asarray(smooth, dtype=np.float64), 0, 1)


def clouds(rng: np.random.Generator, height: int, width: int, period: float) -> Field:
    """Four octaves of noise, the coarsest with hills ``period`` pixels apart."""
    octaves = [noise(rng, height, width, max(1.5, period / 2**k)) for k in range(4)]
    weights = np.array([0.45, 0.28, 0.17, 0.1])
    return np.tensordot(weights, np.stack(octaves), axes=1)


def pattern(rng: np.random.Generator, name: str, height: int, width: int, period: float) -> Field:
    """A texture turned and shifted at random, ``period`` pixels from one stripe to the next."""
    if name == "blotches":
        return _soft(noise(rng, height, width, period / 1.4) - 0.5, 8)
    y, x = np.mgrid[:height, :width] / period
    angle, shift = rng.uniform(0, TAU), rng.uniform(-8, 8, size=2)
    u = np.cos(angle) * x + np.sin(angle) * y + shift[0]
    v = -np.sin(angle) * x + np.cos(angle) * y + shift[1]
    return PATTERNS[name](u, v)


def mix(field: Field, low: Field, high: Field) -> Field:
    """An image (h, w, 3): colour ``low`` (3,) where ``field`` (h, w) is 0, ``high`` where 1."""
    return low + field[..., None] * (high - low)


def colour(
    rng: np.random.Generator, saturation: tuple[float, float], value: tuple[float, float]
) -> Field:
    """A random RGB colour (3,), 0 to 1, of any hue."""
    return np.array(
        colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value))
    )
