"""Outlines, textures and grounds, drawn at random with OpenCV."""

import colorsys
from collections.abc import Callable

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Floats = NDArray[np.floating]

SUPERSAMPLING = 4  # sub-pixels a pixel and axis
SHIFT = 8  # fractional bits of OpenCV's corners
TAU = 2 * np.pi


def area(outline: Floats) -> float:
    """The area inside an outline of corners (n, 2)."""
    return cv2.contourArea(outline.astype(np.float32))


def _star(points: int, notches: float) -> Floats:
    """A star (2 · points, 2) of area 1 with notches at a radius relative to that of its points."""
    angles = np.pi * np.arange(2 * points) / points
    radii = np.resize([1.0, notches], 2 * points)
    outline = radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return outline / np.sqrt(area(outline))


# A disc, triangle, square and hexagon, whose notches are the middles of the sides; and a star.
OUTLINES = (*(_star(points, np.cos(np.pi / points)) for points in (24, 3, 4, 6)), _star(5, 0.6))


def place(rng: Generator, size: float, centre: tuple[float, float]) -> Floats:
    """A random outline (n, 2) in pixels from the image's top left corner, turned and distorted.

    ``size`` is the side of the square that has the shape's area.
    """
    angle, stretch = rng.uniform(0, TAU), np.exp(rng.uniform(-0.18, 0.18))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    skew = np.array([[stretch, rng.uniform(-0.15, 0.15)], [0, 1 / stretch]])
    return size * OUTLINES[rng.integers(len(OUTLINES))] @ (turn @ skew).T + centre


def coverage(outline: Floats, height: int, width: int) -> Floats:
    """The share of each pixel that lies inside an outline: (height, width), 0 to 1."""
    fine = np.zeros((height * SUPERSAMPLING, width * SUPERSAMPLING), np.uint8)
    # OpenCV's coordinates are those of pixels' middles.
    corners = np.round((outline * SUPERSAMPLING - 0.5) * 2**SHIFT).astype(np.int32)
    cv2.fillPoly(fine, [corners], 255, cv2.LINE_8, SHIFT)
    return cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def _off(u: Floats) -> Floats:
    """The distance from the middle of a period, 0 to 0.5."""
    return np.abs(u % 1 - 0.5)


def _joints(u: Floats, v: Floats) -> Floats:
    """The distance from the joints between bricks of 2 × 1, every other row moved by a half."""
    return np.minimum(1 - 2 * _off(u / 2 + 0.5 * (np.floor(v) % 2)), 0.5 - _off(v))


# Positive where a texture is bright, at coordinates in periods; the steeper, the sharper its edges.
TEXTURES: dict[str, Callable[[Floats, Floats], Floats]] = {
    "bricks": lambda u, v: 8 * (_joints(u, v) - 0.18),
    "checks": lambda u, v: 4 * (np.sin(TAU * u / 2) * np.sin(TAU * v / 2)),
    "crosses": lambda u, v: (
        8 * np.minimum(0.17 - np.minimum(_off(u), _off(v)), 0.45 - np.maximum(_off(u), _off(v)))
    ),
    "dots": lambda u, v: 8 * (0.4 - np.hypot(_off(u), _off(v))),
    "rings": lambda u, v: 8 * (0.12 - np.abs(np.hypot(_off(u), _off(v)) - 0.32)),
    "stripes": lambda u, v: 4 * np.sin(TAU * u),
    "triangles": lambda u, v: 6 * (v % 1 - 2 * _off(u)),
    "zigzag": lambda u, v: 4 * np.sin(TAU * (u + 1.6 * _off(v / 2))),
}


def texture(rng: Generator, name: str, height: int, width: int, period: float) -> Floats:
    """A texture (height, width), 0 to 1, of a period in pixels, turned and shifted at random."""
    y, x = np.mgrid[:height, :width].astype(np.float32) / period
    angle, (along, across) = rng.uniform(-0.3, 0.3), rng.uniform(-8, 8, 2)
    u = np.cos(angle) * x + np.sin(angle) * y + along
    v = -np.sin(angle) * x + np.cos(angle) * y + across
    return np.clip(0.5 + TEXTURES[name](u, v), 0, 1)


def clouds(rng: Generator, height: int, width: int, period: float) -> Floats:
    """Four octaves of smooth noise (height, width), 0 to 1; the coarsest has ``period`` pixels."""
    total = np.zeros((height, width), np.float32)
    for octave, weight in enumerate((0.45, 0.28, 0.17, 0.1)):
        hills = [round(side / period * 2**octave) + 2 for side in (height, width)]
        coarse = rng.random(hills, np.float32)
        total += weight * cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(total, 0, 1)


def mix(share: Floats, low: Floats, high: Floats) -> Floats:
    """An image (h, w, 3) of ``low`` where ``share`` (h, w) is 0 and ``high`` where it is 1.

    Both are colours (3,) or images (h, w, 3).
    """
    return low + share[..., None] * (high - low)


def colour(rng: Generator, *hsv: float) -> Floats:
    """An RGB colour (3,), 0 to 1, near a hue, saturation and value between 0.06 and 0.94."""
    return np.array(colorsys.hsv_to_rgb(*(hsv + rng.uniform(-0.06, 0.06, 3))))


def light(rng: Generator, height: int, width: int) -> Floats:
    """A gradient of brightness (height, width, 1) about 1, from a random side."""
    y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)
    angle, strength = rng.uniform(0, TAU), rng.uniform(0, 0.18)
    return (1 + strength * (np.cos(angle) * x + np.sin(angle) * y))[..., None]
