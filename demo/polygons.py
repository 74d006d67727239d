"""Polygons of a mask, as COCO has them: the mask's outline, exact at every pixel's middle."""

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Points = NDArray[np.float64]

# Directions in which an outline runs, clockwise on the screen: right, down, left, up.
STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))
# The outline passes at least sqrt(1/8) = 0.35 pixels from any pixel's middle. Corners moved by
# less leave every pixel on its side; 0.1 of it is for pycocotools, which rounds to 0.2 pixels.
TOLERANCE = 0.25


def from_mask(mask: Mask) -> list[list[float]]:
    """Polygons whose union has the pixels of ``mask``.

    A region with a hole is cut in two through the hole, for COCO's polygons have none.

    Args:
        mask: (height, width).

    Returns:
        One flat list x, y, x, y, … in pixels for each part; (0, 0) is the top left corner of
        the top left pixel. Empty if the mask is.
    """
    loops = _outlines(mask)
    holes = [loop for loop in loops if _signed_area(loop) < 0]
    if holes:
        cut = int(holes[0][:, 0].mean())
        left, right = mask.copy(), mask.copy()
        left[:, cut:] = right[:, :cut] = False
        return from_mask(left) + from_mask(right)
    return [_simplify(loop).ravel().tolist() for loop in loops]


def _outlines(mask: Mask) -> list[Points]:
    """Closed outlines (n, 2) through the middles of the pixel sides where the mask ends.

    Pixels that touch only at a corner are not joined. Outlines run clockwise on the screen, and
    counter-clockwise about holes.
    """
    padded = np.pad(mask, 1)
    inside = padded[1:-1, 1:-1]
    beyond = (padded[:-2, 1:-1], padded[1:-1, 2:], padded[2:, 1:-1], padded[1:-1, :-2])
    starts = ((0, 0), (1, 0), (1, 1), (0, 1))  # of the top, right, bottom and left side
    sides: dict[tuple[int, int, int], None] = {}
    for direction, (outside, (dx, dy)) in enumerate(zip(beyond, starts, strict=True)):
        for y, x in np.argwhere(inside & ~outside).tolist():
            sides[x + dx, y + dy, direction] = None
    loops = []
    while sides:
        x, y, direction = next(iter(sides))
        loop = []
        while (x, y, direction) in sides:
            del sides[x, y, direction]
            dx, dy = STEPS[direction]
            loop.append((x + dx / 2, y + dy / 2))
            x, y = x + dx, y + dy
            turns = ((direction + turn) % 4 for turn in (1, 0, 3))  # right, straight on, left
            direction = next((turn for turn in turns if (x, y, turn) in sides), direction)
        loops.append(np.array(loop))
    return loops


def _signed_area(loop: Points) -> float:
    """The area inside a closed outline, positive where it runs clockwise on the screen."""
    x, y = loop.T
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def _simplify(loop: Points) -> Points:
    """A closed outline with fewer corners, none of the others further off than the tolerance."""
    far = int(np.argmax(np.linalg.norm(loop - loop[0], axis=1)))
    there, back = loop[: far + 1], np.vstack([loop[far:], loop[:1]])
    return np.concatenate([_thin(there)[:-1], _thin(back)[:-1]])


def _thin(line: Points) -> Points:
    """The Ramer-Douglas-Peucker simplification of an open line (n, 2)."""
    if len(line) < 3:
        return line
    dx, dy = line[-1] - line[0]
    offset = line[1:-1] - line[0]
    distance = np.abs(dx * offset[:, 1] - dy * offset[:, 0]) / np.hypot(dx, dy)
    worst = int(np.argmax(distance))
    if distance[worst] <= TOLERANCE:
        return line[[0, -1]]
    return np.concatenate([_thin(line[: worst + 2])[:-1], _thin(line[worst + 1 :])])
