"""Outlines, textures and grounds, drawn at random with OpenCV."""

import colorsys
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]

SUPERSAMPLING = 4  # sub-pixels a pixel and axis
SHIFT = 8  # fractional bits of OpenCV's corners
TAU = 2 * np.pi


def _star(corners: int, notches: float | None = None) -> Floats:
    """A star of area 1 whose notches lie at that radius; a regular polygon without."""
    if notches is None:
        notches = np.cos(np.pi / corners)  # the middles of the sides
    radii = np.resize([1.0, notches], 2 * corners)
    angles = np.pi * np.arange(2 * corners) / corners
    outline = radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return outline / np.sqrt(area(outline))


def area(outline: Floats) -> float:
    """The area inside an outline of corners (n, 2)."""
    return cv2.contourArea(outline.astype(np.float32))


OUTLINES = (_star(24), _star(3), _star(4), _star(6), _star(5, 0.6))  # a disc first


def place(rng: np.random.Generator, size: float, centre: tuple[float, float]) -> Floats:
    """Corners (n, 2) of a random outline in pixels, turned, and a little stretched and skewed.

    ``size`` is the side of the square that has the shape's area; (0, 0) is the top left corner of
    the top left pixel.
    """
    angle, stretch = rng.uniform(0, TAU), np.exp(rng.uniform(-0.18, 0.18))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    skew = np.array([[stretch, rng.uniform(-0.15, 0.15)], [0, 1 / stretch]])
    return size * OUTLINES[rng.integers(len(OUTLINES))] @ (turn @ skew).T + np.array(centre)


def coverage(outline: Floats, height: int, width: int) -> Floats:
    """The share of each pixel that lies inside an outline: (height, width), 0 to 1."""
    fine = np.zeros((height * SUPERSAMPLING, width * SUPERSAMPLING), np.uint8)
    # OpenCV's coordinates are those of pixels' middles.
    corners = np.round((outline * SUPERSAMPLING - 0.5) * 2**SHIFT).astype(np.int32)
    cv2.fillPoly(fine, [corners], 255, cv2.LINE_8, SHIFT)
    return cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def _soft(value: Floats, sharpness: float = 4.0) -> Floats:
    """A step at 0 from 0 to 1, blurred so that it shows no jagged edges."""
    return np.clip(0.5 + sharpness * value, 0, 1)


def _bricks(u: Floats, v: Floats) -> Floats:
    along = u / 2 + 0.5 * (np.floor(v) % 2)
    to_joint = np.minimum(1 - 2 * np.abs(along % 1 - 0.5), 0.5 - np.abs(v % 1 - 0.5))
    return _soft(to_joint - 0.18, 8)


def _crosses(u: Floats, v: Floats) -> Floats:
    x, y = np.abs(u % 1 - 0.5), np.abs(v % 1 - 0.5)
    return _soft(np.minimum(0.17 - np.minimum(x, y), 0.45 - np.maximum(x, y)), 8)


PATTERNS: dict[str, Callable[[Floats, Floats], Floats]] = {
    "bricks": _bricks,
    "crosses": _crosses,
    "rings": lambda u, v: _soft(0.12 - np.abs(np.hypot(u % 1 - 0.5, v % 1 - 0.5) - 0.32), 8),
    "triangles": lambda u, v: _soft(v % 1 - 2 * np.abs(u % 1 - 0.5), 6),
    "checks": lambda u, v: _soft(np.sin(TAU * u / 2) * np.sin(TAU * v / 2)),
    "dots": lambda u, v: _soft(0.4 - np.hypot(u % 1 - 0.5, v % 1 - 0.5), 8),
    "stripes": lambda u, v: _soft(np.sin(TAU * u)),
    "zigzag": lambda u, v: _soft(np.sin(TAU * (u + 1.6 * np.abs(v / 2 % 1 - 0.5)))),
}


def pattern(rng: np.random.Generator, name: str, height: int, width: int, period: float) -> Floats:
    """A texture (height, width) of values 0 to 1, turned and shifted at random.

    ``period`` is the distance from one stripe to the next, in pixels.
    """
    y, x = np.mgrid[:height, :width].astype(np.float32) / period
    angle, (along, across) = rng.uniform(-0.3, 0.3), rng.uniform(-8, 8, 2)
    u = np.cos(angle) * x + np.sin(angle) * y + along
    v = -np.sin(angle) * x + np.cos(angle) * y + across
    return PATTERNS[name](u, v)


def clouds(rng: np.random.Generator, height: int, width: int, period: float) -> Floats:
    """Four octaves of smooth noise (height, width) of values 0 to 1, the coarsest with hills
    ``period`` pixels apart."""
    total = np.zeros((height, width), np.float32)
    for octave, weight in enumerate((0.45, 0.28, 0.17, 0.1)):
        hills = max(1.5, period / 2**octave)
        coarse = rng.random(
            [max(2, round(side / hills) + 2) for side in (height, width)], np.float32
        )
        total += weight * cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(total, 0, 1)


def mix(field: Floats, low: Floats, high: Floats) -> Floats:
    """An image (h, w, 3): colour ``low`` (3,) where ``field`` (h, w) is 0, ``high`` where 1."""
    return low + field[..., None] * (high - low)


def colour(rng: np.random.Generator, hue: float, saturation: float, value: float) -> Floats:
    """An RGB colour (3,), 0 to 1, near one of given hue, saturation and value."""
    near = rng.uniform(-0.06, 0.06, 3)
    return np.array(
        colorsys.hsv_to_rgb(
            (hue + near[0]) % 1, np.clip(saturation + near[1], 0, 1), np.clip(value + near[2], 0, 1)
        )
    )


def light(rng: np.random.Generator, height: int, width: int) -> Floats:
    """A gradient of brightness (height, width, 1) about 1, from a random side."""
    y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)
    angle, strength = rng.uniform(0, TAU), rng.uniform(0, 0.18)
    return (1 + strength * (np.cos(angle) * x + np.sin(angle) * y))[..., None]
