"""The predictions that an evaluation left, image by image."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from segmentation.masks import read_mask

FILE = Path("inference") / "sem_seg_predictions.json"  # of a run folder; Detectron2's name


def confusions(folder: Path, dataset: str) -> NDArray[np.int64]:
    """Pixels by true and predicted class of each image of a test set: (images, classes, classes).

    ``folder`` is a segmentation run's. Pixels that the truth ignores do not count.
    """
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for one in json.loads((folder / FILE).read_text()):
        found[one["file_name"]].append(one)
    metadata = MetadataCatalog.get(dataset)
    classes, counts = len(metadata.stuff_classes), []
    for row in DatasetCatalog.get(dataset):
        truth = read_mask(row["sem_seg_file_name"], classes, metadata.ignore_label)
        predicted = np.zeros_like(truth)
        for one in found[row["file_name"]]:
            predicted[coco_mask.decode(one["segmentation"]) == 1] = one["category_id"]
        seen = truth != metadata.ignore_label
        pairs = classes * truth[seen].astype(np.int64) + predicted[seen]
        counts.append(np.bincount(pairs, minlength=classes**2).reshape(classes, classes))
    return np.stack(counts)


def miou(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """mIoU in percent of confusions (..., classes, classes), over the classes in the truth."""
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    truth, predicted = confusion.sum(-1), confusion.sum(-2)
    with np.errstate(invalid="ignore"):
        iou = np.where(truth > 0, right / (truth + predicted - right), np.nan)
    return 100 * np.nanmean(iou, axis=-1)
