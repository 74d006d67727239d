"""Outlines of the shapes, their random placement, and how much of each pixel they cover."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

SUPERSAMPLING = 4  # sub-pixels a pixel and axis


def _regular(corners: int, inner: float | None = None) -> NDArray[np.float64]:
    """A regular polygon, or with ``inner`` a star whose notches lie at that radius."""
    radii = np.array([1.0]) if inner is None else np.array([1.0, inner])
    count = corners * len(radii)
    angles = 2 * np.pi * np.arange(count) / count
    return np.resize(radii, count)[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _cross(arm: float = 0.36) -> NDArray[np.float64]:
    """A plus sign whose bars reach from -1 to 1 and are ``2 * arm`` wide."""
    corner = np.array([[1, -arm], [1, arm], [arm, arm]])
    turns = [np.array([[c, -s], [s, c]]) for c, s in ((1, 0), (0, 1), (-1, 0), (0, -1))]
    return np.concatenate([corner @ turn.T for turn in turns])


def _crescent(radius: float = 0.8, offset: float = 0.5, steps: int = 32) -> NDArray[np.float64]:
    """The unit disc less the disc of ``radius`` whose centre is ``offset`` to its right."""
    tip = (1 - radius**2 + offset**2) / (2 * offset)  # where the two circles meet
    start = np.arccos(tip)
    outer = np.linspace(start, 2 * np.pi - start, steps)
    start = np.arccos((tip - offset) / radius)
    inner = np.linspace(2 * np.pi - start, start, steps)[1:-1]
    arcs = np.concatenate([np.exp(1j * outer), offset + radius * np.exp(1j * inner)])
    return np.stack([arcs.real, arcs.imag], axis=1)


def _unit(outline: NDArray[np.float64]) -> NDArray[np.float64]:
    """``outline`` scaled to area 1, with the middle of its extent at the origin."""
    centred = outline - (outline.min(axis=0) + outline.max(axis=0)) / 2
    return centred / np.sqrt(area(centred))


def area(outline: NDArray[np.float64]) -> float:
    """The area inside an outline of corners (n, 2), by the shoelace formula."""
    x, y = outline.T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


OUTLINES = {
    "crescent": _unit(_crescent()),
    "cross": _unit(_cross()),
    "disc": _unit(_regular(48)),
    "square": _unit(_regular(4)),
    "star": _unit(_regular(5, inner=0.45)),
    "triangle": _unit(_regular(3)),
}


def place(
    rng: np.random.Generator, name: str, size: float, centre: tuple[float, float]
) -> NDArray[np.float64]:
    """Corners (n, 2) of an outline, turned at random and a little stretched and skewed, in pixels.

    ``size`` is the side of the square that has the shape's area; (0, 0) is the top left corner of
    the top left pixel.
    """
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    stretch = np.exp(rng.uniform(-0.18, 0.18))
    skew = np.array([[stretch, rng.uniform(-0.15, 0.15)], [0, 1 / stretch]])
    return size * OUTLINES[name] @ (turn @ skew).T + np.array(centre)


def coverage(outline: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    """The share of each pixel that lies inside ``outline``: (height, width), 0 to 1."""
    fine = Image.new("L", (width * SUPERSAMPLING, height * SUPERSAMPLING))
    corners = [(float(x), float(y)) for x, y in outline * SUPERSAMPLING]
    ImageDraw.Draw(fine).polygon(corners, fill=255)
    return np.asarray(fine.reduce(SUPERSAMPLING), dtype=np.float64) / 255
