"""How a config reads images and where its ResNet strides: as the training of its weights did."""

from collections.abc import Mapping
from typing import Any

KEYS = (
    "INPUT.FORMAT",
    "MODEL.PIXEL_MEAN",
    "MODEL.PIXEL_STD",
    "MODEL.RESNETS.STRIDE_IN_1X1",
)

# Of 0..255, RGB: ImageNet's, with which torchvision and self-supervised methods normalise.
TORCHVISION = dict(
    zip(KEYS, ("RGB", [123.675, 116.28, 103.53], [58.395, 57.12, 57.375], False), strict=True)
)
# Of Caffe, and so of Detectron2's own ImageNet weights: the deviation is in the first convolution.
MSRA = dict(zip(KEYS, ("BGR", [103.53, 116.28, 123.675], [1.0, 1.0, 1.0], True), strict=True))


def settings(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """What a Detectron2 config, or the YAML of one, has of these keys."""
    found = {}
    for key in KEYS:
        value: Any = cfg
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is not None:
            found[key] = list(value) if isinstance(value, tuple) else value
    return found
