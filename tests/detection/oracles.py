"""Detectors that know their answers, and the scores that pycocotools gives these."""

import contextlib
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.data import MetadataCatalog
from detectron2.structures import Boxes, Instances
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import nn

from detection.evaluation import AP_NAMES, DETECTION, evaluate

ALL_NAMES = [f"{task}_{ap}" for task in ("box", "mask") for ap in AP_NAMES]
SMALL = ("INPUT.MIN_SIZE_TEST", 32, "DATALOADER.NUM_WORKERS", 0)


class Oracle(nn.Module):
    """A detector that knows its answer about each image, by the name of its file."""

    def __init__(self, answers: Mapping[str, Instances]) -> None:
        super().__init__()
        self.answers = answers

    def forward(self, inputs: list[dict[str, Any]]) -> list[dict[str, Instances]]:
        return [{"instances": self.answers[Path(x["file_name"]).name]} for x in inputs]


def answer(
    height: int,
    width: int,
    boxes: Sequence[Any],
    classes: Sequence[int],
    scores: Any = 1.0,
    masks: Sequence[Any] | None = None,
) -> Instances:
    """Objects with corners, classes and scores, and perhaps masks (height, width), in an image."""
    found = Instances((height, width))
    found.pred_boxes = Boxes(torch.tensor(np.array(boxes, np.float32).reshape(-1, 4)))
    found.pred_classes = torch.tensor(classes, dtype=torch.int64)
    found.scores = torch.as_tensor(scores).expand(len(boxes))
    if masks is not None:
        found.pred_masks = torch.tensor(np.array(masks, bool).reshape(-1, height, width))
    return found


def perturbed(truth: COCO, seed: int = 0) -> dict[str, Instances]:
    """Detections around the objects of all images: moved, resized, doubled, missed, mistaken."""
    generator = np.random.default_rng(seed)
    categories, answers = sorted(truth.cats), {}
    for image in truth.imgs.values():
        size = np.array([image["width"], image["height"]] * 2, dtype=np.float32)
        boxes, masks, classes = [], [], []
        for annotation in truth.imgToAnns[image["id"]]:
            for _ in range(int(generator.integers(0, 4))):
                x, y, w, h = annotation["bbox"]
                noise = np.array([w, h, w, h]) * generator.normal(0, 0.08, 4)
                corners = np.array([x, y, x + w, y + h]) + noise
                boxes.append(np.clip(np.sort(corners.reshape(2, 2), 0).ravel(), 0, size))
                shift = generator.normal(0, 0.08, 2) * (h, w)
                masks.append(np.roll(truth.annToMask(annotation), shift.astype(int), (0, 1)))
                right = categories.index(annotation["category_id"])
                wrong = int(generator.integers(len(categories)))
                classes.append(right if generator.random() < 0.8 else wrong)
        # Scores of two digits: many are equal, and their order matters too.
        scores = generator.random(len(boxes)).round(2)
        answers[image["file_name"]] = answer(
            image["height"], image["width"], boxes, classes, scores, masks
        )
    return answers


def perfect(content: dict[str, Any]) -> Oracle:
    """The answers that are annotated in a file's content, crowds aside."""
    labels = sorted(category["id"] for category in content["categories"])
    answers = {}
    for image in content["images"]:
        size = image["height"], image["width"]
        mine = [a for a in content["annotations"] if a["image_id"] == image["id"]]
        mine = [a for a in mine if not a["iscrowd"]]
        masks = [rle.decode(rle.merge(rle.frPyObjects(a["segmentation"], *size))) for a in mine]
        boxes = [(x, y, x + w, y + h) for x, y, w, h in (a["bbox"] for a in mine)]
        classes = [labels.index(a["category_id"]) for a in mine]
        answers[image["file_name"]] = answer(*size, boxes, classes, masks=masks)
    return Oracle(answers)


def results(truth: COCO, answers: Mapping[str, Instances], task: str) -> list[dict[str, Any]]:
    """COCO's result format, written without Detectron2."""
    rows = []
    for image in truth.imgs.values():
        found = answers[image["file_name"]]
        for i in range(len(found)):
            x0, y0, x1, y1 = found.pred_boxes.tensor[i].double().tolist()
            row = {"image_id": image["id"], "score": float(found.scores[i]),
                   "category_id": sorted(truth.cats)[int(found.pred_classes[i])]}  # fmt: skip
            if task == "bbox":
                row["bbox"] = [x0, y0, x1 - x0, y1 - y0]
            else:  # sizes go by the mask's area, as COCO's server does it
                mask = found.pred_masks[i].numpy().astype(np.uint8)
                row["segmentation"] = rle.encode(np.asfortranarray(mask))
            rows.append(row)
    return rows


def reference(
    truth: COCO, answers: Mapping[str, Instances], tasks: Sequence[str] = ("bbox", "segm")
) -> list[float]:
    """pycocotools' six APs of each task, in percent."""
    found: list[float] = []
    for task in tasks:
        rows = results(truth, answers, task)
        with contextlib.redirect_stdout(io.StringIO()):
            coco_eval = COCOeval(truth, truth.loadRes(rows) if rows else COCO(), task)
            coco_eval.evaluate()
            coco_eval.accumulate()
            coco_eval.summarize()
        found += [100 * ap if ap >= 0 else math.nan for ap in coco_eval.stats[:6]]
    return found


def open_truth(path: str | Path) -> COCO:
    """The ground truth in a file, without pycocotools' words."""
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


def truth_of(name: str) -> COCO:
    """The ground truth of one of Detectron2's data sets."""
    return open_truth(MetadataCatalog.get(name).json_file)


def assert_scores_are_pycocotools(
    cfg: Any, answers: Mapping[str, Instances], folder: Path
) -> dict[str, float]:
    """Score answers about a config's test set here and by pycocotools, boxes and masks."""
    found = evaluate(cfg, DETECTION, Oracle(answers), str(folder))
    assert list(found) == ALL_NAMES
    wanted = reference(truth_of(cfg.DATASETS.TEST[0]), answers)
    np.testing.assert_allclose(list(found.values()), wanted, rtol=0, atol=1e-6)
    return found
