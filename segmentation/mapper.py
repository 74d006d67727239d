"""Training crops of image and mask, scaled, cropped or padded, and flipped together."""

from typing import Any

import cv2
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

SAMPLINGS = ("relative_range", "range")
CROPS = ("absolute", "absolute_distorted")
MAX_AREA = 0.75  # of a crop's labelled pixels, of one class: cat_max_ratio in mmsegmentation


class RandomScale(T.Augmentation):
    """Scale by a random ratio; the image bilinearly, the mask by nearest.

    Without ``longest`` the ratio is drawn from ``low`` to ``high``. With it, the shorter side in
    pixels is, and the longer is limited to ``longest`` where the shorter has ``high``, and
    proportionally below (mmsegmentation's Resize with a ratio_range).
    """

    def __init__(self, low: float, high: float, longest: float | None = None) -> None:
        super().__init__()
        self.low, self.high, self.longest = low, high, longest

    def get_transform(self, image: NDArray[Any]) -> Transform:
        height, width = image.shape[:2]
        ratio = drawn = np.random.uniform(self.low, self.high)
        if self.longest is not None:
            longest = int(drawn * self.longest / self.high)
            ratio = min(int(drawn) / min(height, width), longest / max(height, width))
        new_height, new_width = (max(int(side * ratio + 0.5), 1) for side in (height, width))
        return T.ResizeTransform(height, width, new_height, new_width, Image.Resampling.BILINEAR)


class CropOrPad(T.Augmentation):
    """A random crop of a fixed size (height, width).

    Smaller images are padded to the right and the bottom: pixels by the colour ``fill``, labels by
    ``ignore``.
    """

    def __init__(self, size: tuple[int, int], fill: NDArray[np.uint8], ignore: int) -> None:
        super().__init__()
        self.size, self.fill, self.ignore = size, fill, ignore

    def get_transform(self, image: NDArray[Any]) -> Transform:
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
        return self._place(img, np.broadcast_to(self.fill, (*self.size, img.shape[2])))

    def apply_segmentation(self, segmentation: NDArray[Any]) -> NDArray[Any]:
        return self._place(segmentation, np.full(self.size, self.ignore))

    def apply_coords(self, coords: NDArray[Any]) -> NDArray[Any]:
        return coords - (self.x, self.y)

    def _place(self, array: NDArray[Any], empty: NDArray[Any]) -> NDArray[Any]:
        height, width = self.size
        crop = array[self.y : self.y + height, self.x : self.x + width]
        placed = empty.astype(array.dtype)
        placed[: crop.shape[0], : crop.shape[1]] = crop
        return placed


class PhotometricDistortion(T.Augmentation):
    """Brightness, contrast, saturation and hue, each changed with probability 0.5.

    mmsegmentation's PhotoMetricDistortion (mmseg/datasets/pipelines/transforms.py), with its
    default ranges. ``order`` is that of the channels, RGB or BGR.
    """

    def __init__(self, order: str) -> None:
        super().__init__()
        self.order = order
        cv2.setNumThreads(0)  # loaders are processes; each would have threads of its own

    def get_transform(self, image: NDArray[Any]) -> Transform:
        on, uniform = np.random.randint(2, size=5), np.random.uniform
        drawn: dict[str, Any] = {
            "brightness": uniform(-32, 32) if on[0] else 0.0,
            "contrast": uniform(0.5, 1.5) if on[1] else 1.0,
            "saturation": uniform(0.5, 1.5) if on[2] else None,
            "hue": np.random.randint(-18, 18) if on[3] else None,
            "contrast_last": bool(on[4]),
        }
        return T.ColorTransform(lambda image: distort(image, self.order, **drawn))


def distort(
    image: NDArray[np.uint8],
    order: str,
    *,
    brightness: float = 0.0,
    contrast: float = 1.0,
    saturation: float | None = None,
    hue: int | None = None,
    contrast_last: bool = False,
) -> NDArray[np.uint8]:
    """An image (h, w, 3) in other colours, byte for byte as mmsegmentation computes them.

    Brightness and hue are added, the latter in OpenCV's units of 2 degrees; contrast and saturation
    are factors. The contrast is changed after the brightness, or last.
    """
    image = _linear(image, 1.0, brightness)
    if not contrast_last:
        image = _linear(image, contrast)
    to_hsv, back = getattr(cv2, f"COLOR_{order}2HSV"), getattr(cv2, f"COLOR_HSV2{order}")
    if saturation is not None:
        hsv = cv2.cvtColor(image, to_hsv)
        hsv[..., 1] = _linear(hsv[..., 1], saturation)
        image = np.asarray(cv2.cvtColor(hsv, back), np.uint8)
    if hue is not None:
        hsv = cv2.cvtColor(image, to_hsv)
        hsv[..., 0] = (hsv[..., 0].astype(int) + hue) % 180
        image = np.asarray(cv2.cvtColor(hsv, back), np.uint8)
    return _linear(image, contrast) if contrast_last else image


def _linear(image: NDArray[Any], factor: float, offset: float = 0.0) -> NDArray[np.uint8]:
    """Bytes, multiplied, moved, clipped and cut to whole numbers."""
    return np.clip(image.astype(np.float32) * factor + offset, 0, 255).astype(np.uint8)


class SegmentationMapper:
    """Mapper from a record of ``segmentation.datasets`` to an input of :class:`fcn.FCN`.

    Detectron2's keys are given values here that it does not know.
    ``INPUT.MIN_SIZE_TRAIN_SAMPLING`` "relative_range" says that ``INPUT.MIN_SIZE_TRAIN`` is a
    range of ratios of an image's own size; with "range" it is one of its shorter side.
    ``INPUT.CROP.TYPE`` "absolute_distorted" is a crop that is drawn up to ten times, until no class
    has over 0.75 of it, and whose colours are distorted.
    """

    def __init__(self, cfg: Any) -> None:
        self.format = cfg.INPUT.FORMAT
        self.classes = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
        self.ignore = cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE
        self.augmentations = T.AugmentationList(augmentations(cfg))

    def __call__(self, record: dict[str, Any]) -> dict[str, Any]:
        """The record with ``image`` (3, H, W) uint8, ``sem_seg`` (H, W) int64, and the file's size.

        One of Detectron2's or Pillow's errors if a file cannot be read or the sizes differ.
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
    """Scale, crop, flip and colours, as a config asks for them; a UserError for other requests."""
    inputs, ignore = cfg.INPUT, cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE
    sampling, sizes, crop = inputs.MIN_SIZE_TRAIN_SAMPLING, inputs.MIN_SIZE_TRAIN, inputs.CROP
    if sampling not in SAMPLINGS or len(sizes) != 2:
        raise UserError(
            f"INPUT.MIN_SIZE_TRAIN_SAMPLING is {sampling} and INPUT.MIN_SIZE_TRAIN {sizes}; "
            "segmentation scales images by a ratio: relative_range and, for example, (0.5, 2.0); "
            "or range and two lengths of the shorter side in pixels."
        )
    longest = inputs.MAX_SIZE_TRAIN if sampling == "range" else None
    scale = RandomScale(float(sizes[0]), float(sizes[1]), longest)
    horizontal = inputs.RANDOM_FLIP == "horizontal"
    flips = [T.RandomFlip(horizontal=horizontal, vertical=not horizontal)]
    if inputs.RANDOM_FLIP == "none":
        flips = []
    if not crop.ENABLED:
        return [scale, *flips]
    if crop.TYPE not in CROPS:
        raise UserError(
            f"INPUT.CROP.TYPE is {crop.TYPE}; segmentation has {' and '.join(CROPS)} crops, whose "
            "INPUT.CROP.SIZE is in pixels."
        )
    height, width = map(int, crop.SIZE)
    # Images stay bytes on their way from the workers: the mean is rounded.
    fill = np.round(cfg.MODEL.PIXEL_MEAN).astype(np.uint8)
    crop_or_pad = CropOrPad((height, width), fill, ignore)
    if crop.TYPE == "absolute":
        return [scale, crop_or_pad, *flips]
    diverse = T.RandomCrop_CategoryAreaConstraint("absolute", (height, width), MAX_AREA, ignore)
    return [scale, diverse, *flips, PhotometricDistortion(inputs.FORMAT), crop_or_pad]
