"""What keeps an annotated object from being trained on, or scored by."""

from typing import Any

import numpy as np
import pycocotools.mask as mask_util


def is_crowd(annotation: dict[str, Any]) -> bool:
    """Whether it marks several objects at once, which Detectron2 does not train on."""
    return bool(annotation.get("iscrowd", 0))


def flaw(annotation: dict[str, Any], masks: bool) -> str:
    """What an object lacks of what is asked for; "" if nothing.

    Args:
        annotation: Detectron2's, of one object.
        masks: whether a mask is asked for, and not a box alone.
    """
    box = annotation.get("bbox")
    if box is None or len(box) != 4 or not all(isinstance(v, int | float | np.number) for v in box):
        return "an object without a box"
    mask = annotation.get("segmentation")
    if masks and (mask is None or len(mask) == 0):
        return "an object without a mask, for which MODEL.MASK_ON asks"
    return ""


def is_run_lengths(annotation: dict[str, Any]) -> bool:
    """Whether an object has a mask, which is not made of polygons."""
    return isinstance(annotation.get("segmentation"), dict)


def broken_run_lengths(annotation: dict[str, Any], record: dict[str, Any]) -> str:
    """Why a mask in run lengths is none of its image; "" if it is one.

    Args:
        annotation: Detectron2's, of one object.
        record: its image's, of which height and width are read.
    """
    try:
        height, width = mask_util.decode(annotation["segmentation"]).shape
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        return f"a mask that cannot be read ({error})"
    if (height, width) != (record["height"], record["width"]):
        return f"a mask of {width}x{height}, the image {record['width']}x{record['height']}"
    return ""
