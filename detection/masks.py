"""Masks of objects in COCO's format: polygons, and run lengths as counts or compressed."""

import math
from array import array
from collections.abc import Mapping
from typing import Any

import pycocotools.mask as mask_util

FAR = 10**7  # pixels; a polygon a hundred times as far out ends a process in pycocotools
FLAT_MASK = "a mask of polygons with fewer than three points"


def are_numbers(values: Any) -> bool:
    """True for finite numbers that may be pixels of an image."""
    try:
        near = min(values, default=0) > -FAR and max(values, default=0) < FAR
        return near and math.isfinite(sum(values))  # NaN is neither less nor more
    except (TypeError, OverflowError):
        return False


def flaw_of_mask(mask: Any, height: int, width: int) -> str:
    """The flaw that keeps a mask from being used in an image of that size; "" if there is none."""
    if not mask:
        return "no mask, for which MODEL.MASK_ON asks (False: boxes alone)"
    if isinstance(mask, dict):
        size, counts = mask.get("size"), _counts(mask)
        if size != [height, width] or not all(type(side) is int for side in size):
            return f"a mask of the size {size}, in an image of {[height, width]}"
        if counts is None:
            return "a mask whose run lengths cannot be read"
        if sum(counts) != height * width:
            return f"a mask of {sum(counts)} pixels, in an image of {height} x {width}"
        return ""
    if not isinstance(mask, list) or not all(isinstance(p, list | array) for p in mask):
        return "a mask that is neither a list of polygons nor run lengths"
    if any(len(polygon) % 2 or not are_numbers(polygon) for polygon in mask):
        return "a polygon that is no list of x and y in turn, in pixels"
    return FLAT_MASK if all(len(polygon) < 6 for polygon in mask) else ""


def _counts(mask: Mapping[str, Any]) -> list[int] | None:
    """Numbers of pixels outside, inside, outside ... in turn; None if they cannot be read."""
    counts = mask.get("counts")
    if isinstance(counts, str | bytes):
        counts = _decompressed(counts.encode() if isinstance(counts, str) else counts)
    readable = isinstance(counts, list) and all(type(c) is int and c >= 0 for c in counts)
    return counts if readable else None


def _decompressed(text: bytes) -> list[int] | None:
    """Run lengths of COCO's text: five bits a character, the lowest first, a sixth if more follow.

    From the fourth on, each is written as the difference to the last but one.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = character - 48
        if not 0 <= bits < 64:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (1 << shift) if bits & 16 else 0
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return None if shift else counts


def area_of_mask(mask: Any, height: int, width: int) -> int:
    """The pixels of a mask."""
    if isinstance(mask, dict):
        return sum((_counts(mask) or [])[1::2])
    polygons = mask_util.frPyObjects([list(polygon) for polygon in mask], height, width)
    return int(mask_util.area(mask_util.merge(polygons)))
