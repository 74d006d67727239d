"""The project's embedded data: textured shapes on textured grounds, drawn on demand from a seed.

Example:
    >>> root = demo.ensure()  # draws the set the first time, in seconds
    >>> ImageFolder(root / "imagenet" / "train"), COCO(root / "coco/annotations/...")
"""

from demo.classes import CLASSES, COCO_IDS, VOC_INDICES, VOC_NAMES
from demo.datasets import Counts, default_root, ensure, write

__all__ = [
    "CLASSES",
    "COCO_IDS",
    "VOC_INDICES",
    "VOC_NAMES",
    "Counts",
    "default_root",
    "ensure",
    "write",
]
