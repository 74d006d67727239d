"""Registration of Pascal VOC 2012's segmentation sets, and of the embedded data's.

Under ``DETECTRON2_DATASETS``/VOC2012: ``ImageSets/Segmentation/{train,val,train_aug}.txt``,
``JPEGImages``, ``SegmentationClass`` and for train_aug ``SegmentationClassAug``, both with PNG
masks of class indices (``segmentation.train_aug`` makes the latter).
"""

import functools
import os
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from detection.datasets import DEMO_PREFIX, DEMO_ROOT
from segmentation.masks import CLASSES, IGNORE

MASKS = {
    "train": "SegmentationClass",
    "val": "SegmentationClass",
    "train_aug": "SegmentationClassAug",
}


def load(root: Path, split: str, masks: str) -> list[dict[str, Any]]:
    """Detectron2's records of a split of the folder VOC2012: image, mask, id."""
    return [
        {
            "file_name": str(root / "JPEGImages" / f"{name}.jpg"),
            "sem_seg_file_name": str(root / masks / f"{name}.png"),
            "image_id": name,
        }
        for name in list_of(root, split).read_text().split()
    ]


def list_of(root: Path, split: str) -> Path:
    """The text file that lists a split's images."""
    return root / "ImageSets" / "Segmentation" / f"{split}.txt"


def register(name: str, root: Path, split: str, masks: str) -> None:
    """Register a split of a folder in VOC 2012's layout as the dataset ``name``."""
    DatasetCatalog.register(name, functools.partial(load, root, split, masks))
    MetadataCatalog.get(name).set(
        stuff_classes=list(CLASSES),
        ignore_label=IGNORE,
        evaluator_type="sem_seg",
        image_root=str(root / "JPEGImages"),
        sem_seg_root=str(root / masks),
        image_list=str(list_of(root, split)),
    )


_ROOTS = {
    "": Path(os.environ.get("DETECTRON2_DATASETS", "datasets")).expanduser(),
    DEMO_PREFIX: DEMO_ROOT,
}
for _prefix, _root in _ROOTS.items():
    for _split, _masks in MASKS.items():
        register(f"{_prefix}voc_2012_{_split}_sem_seg", _root / "VOC2012", _split, _masks)
