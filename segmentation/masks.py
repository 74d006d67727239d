"""Label masks: PNGs whose pixels are class indices, with or without a palette."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from demo.classes import VOC_CLASSES

CLASSES = ("background", *VOC_CLASSES)
IGNORE = 255  # VOC's border around objects
MODES = {"P", "L", "1"}  # one number a pixel; a palette only colours it for the eye


def read_mask(path: str | Path, classes: int, ignore: int) -> NDArray[np.uint8]:
    """The class index of each pixel, (height, width), below ``classes`` or equal to ``ignore``.

    Detectron2's own mapper turns a palette's colours to grey, and so into numbers that are no
    classes.

    Raises:
        OSError: naming the file, if it cannot be read or holds something else.
    """
    try:
        with Image.open(path) as image:
            if image.mode not in MODES:
                raise OSError(f"its pixels are {image.mode} colours, not class indices")
            mask = np.array(image, dtype=np.uint8)
    except (OSError, SyntaxError) as error:
        raise OSError(f"mask {path}: {error}") from error
    wrong = mask[(mask >= classes) & (mask != ignore)]
    if wrong.size:
        raise OSError(f"mask {path}: {wrong[0]} is no index of {classes} classes")
    return mask
