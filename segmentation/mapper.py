"""Training crops: image and mask, scaled, cropped or padded, and flipped together."""

from typing import Any

import numpy as np
import torch
from detectron2.data import detection_utils
from detectron2.data import transforms as T
from detectron2.data.detection_utils import SizeMismatchError
from fvcore.transforms.transform import Transform
from numpy.typing import NDArray
from PIL import Image

from common.errors import UserError
from segmentation.masks import read_mask

SAMPLING = "relative_range"


class RandomScale(T.Augmentation):
    """Scale by a ratio drawn uniformly from a range; the image bilinearly, the mask by nearest."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = low, high

    def get_transform(self, image: NDArray[Any]) -> Transform:
        """Of an image (height, width, 3)."""
        height, width = image.shape[:2]
        ratio = np.random.uniform(self.low, self.high)
        new_height, new_width = (max(round(side * ratio), 1) for side in (height, width))
        return T.ResizeTransform(height, width, new_height, new_width, Image.Resampling.BILINEAR)


class CropOrPad(T.Augmentation):
    """A random crop of a fixed size; what is smaller is padded to the right and the bottom."""

    def __init__(self, size: tuple[int, int], fill: NDArray[np.uint8], ignore: int) -> None:
        """
        Args:
            size: height and width of the crop.
            fill: the colour of padding, of an image's channels.
            ignore: the label of padding.
        """
        super().__init__()
        self.size, self.fill, self.ignore = size, fill, ignore

    def get_transform(self, image: NDArray[Any]) -> Transform:
        """Of an image (height, width, 3)."""
        y, x = (
            np.random.randint(0, max(side - wanted, 0) + 1)
            for side, wanted in zip(image.shape[:2], self.size, strict=True)
        )
        return _CropOrPad(y, x, self.size, self.fill, self.ignore)


class _CropOrPad(Transform):
    def __init__(
        self, y: int, x: int, size: tuple[int, int], fill: NDArray[np.uint8], ignore: int
    ) -> None:
        super().__init__()
        self.y, self.x, self.size, self.fill, self.ignore = y, x, size, fill, ignore

    def apply_image(self, img: NDArray[Any]) -> NDArray[Any]:
        """(h, w, 3) to (*size, 3)."""
        return self._place(img, np.broadcast_to(self.fill, (*self.size, img.shape[2])))

    def apply_segmentation(self, segmentation: NDArray[Any]) -> NDArray[Any]:
        """(h, w) to size."""
        return self._place(segmentation, np.full(self.size, self.ignore))

    def apply_coords(self, coords: NDArray[Any]) -> NDArray[Any]:
        """Points (n, 2) as x, y."""
        return coords - (self.x, self.y)

    def _place(self, array: NDArray[Any], empty: NDArray[Any]) -> NDArray[Any]:
        height, width = self.size
        crop = array[self.y : self.y + height, self.x : self.x + width]
        placed = empty.astype(array.dtype)
        placed[: crop.shape[0], : crop.shape[1]] = crop
        return placed


class SegmentationMapper:
    """A record of ``segmentation.datasets`` to what :class:`segmentation.fcn.FCN` trains on.

    Detectron2 has no key for a scale relative to an image's own size:
    ``INPUT.MIN_SIZE_TRAIN_SAMPLING`` "relative_range" says that ``INPUT.MIN_SIZE_TRAIN`` is one.
    """

    def __init__(self, cfg: Any) -> None:
        """
        Raises:
            UserError: naming a key of the config that asks for something else.
        """
        self.format = cfg.INPUT.FORMAT
        self.classes = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
        self.ignore = cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE
        self.augmentations = T.AugmentationList(augmentations(cfg))

    def __call__(self, record: dict[str, Any]) -> dict[str, Any]:
        """The record with ``image`` (3, H, W) uint8, ``sem_seg`` (H, W) int64, and the file's size.

        Raises:
            OSError: if image or mask cannot be read.
            SizeMismatchError: if they differ in size.
        """
        image = detection_utils.read_image(record["file_name"], self.format)
        mask = read_mask(record["sem_seg_file_name"], self.classes, self.ignore)
        height, width = image.shape[:2]
        if mask.shape != (height, width):
            raise SizeMismatchError(
                f"mask {record['sem_seg_file_name']} is {mask.shape[1]}x{mask.shape[0]}, the image "
                f"{width}x{height}"
            )
        both = T.AugInput(image, sem_seg=mask)
        self.augmentations(both)
        image = np.ascontiguousarray(both.image.transpose(2, 0, 1))
        return {
            **record,
            "height": height,
            "width": width,
            "image": torch.from_numpy(image),
            "sem_seg": torch.from_numpy(both.sem_seg.astype(np.int64)),
        }


def augmentations(cfg: Any) -> list[T.Augmentation]:
    """Scale, crop and flip, as a config asks for them.

    Raises:
        UserError: naming a key that asks for something else.
    """
    inputs = cfg.INPUT
    if inputs.MIN_SIZE_TRAIN_SAMPLING != SAMPLING or len(inputs.MIN_SIZE_TRAIN) != 2:
        raise UserError(
            f"INPUT.MIN_SIZE_TRAIN_SAMPLING is {inputs.MIN_SIZE_TRAIN_SAMPLING} and "
            f"INPUT.MIN_SIZE_TRAIN {inputs.MIN_SIZE_TRAIN}; segmentation scales images by a ratio: "
            f"{SAMPLING} and, for example, (0.5, 2.0)."
        )
    found: list[T.Augmentation] = [RandomScale(*map(float, inputs.MIN_SIZE_TRAIN))]
    if inputs.CROP.ENABLED:
        if inputs.CROP.TYPE != "absolute":
            raise UserError(
                f"INPUT.CROP.TYPE is {inputs.CROP.TYPE}; segmentation has absolute crops, whose "
                "INPUT.CROP.SIZE is in pixels."
            )
        height, width = map(int, inputs.CROP.SIZE)
        # Images stay bytes on their way from the workers: the mean is rounded.
        fill = np.round(cfg.MODEL.PIXEL_MEAN).astype(np.uint8)
        found.append(CropOrPad((height, width), fill, cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE))
    if inputs.RANDOM_FLIP != "none":
        horizontal = inputs.RANDOM_FLIP == "horizontal"
        found.append(T.RandomFlip(horizontal=horizontal, vertical=not horizontal))
    return found
