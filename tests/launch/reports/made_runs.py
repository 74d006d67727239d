"""Runs of all kinds that a report shows: real ones of seconds, made once."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from detectron2.data import MetadataCatalog
from pycocotools.coco import COCO

from detection import train
from detection.config import read, resolve
from detection.evaluation import DETECTION, evaluate
from pretrain.train import pretrain
from segmentation.train import transfer as segment
from tests.detection.helpers import CONFIGS
from tests.detection.oracles import Oracle, perturbed
from tests.detection.small_runs import TINY, tiny
from tests.pretrain.small_runs import small
from tests.segmentation.test_train import tiny as tiny_segmentation

HOSTILE = "<img src=x onerror=alert(1)>"


def make(output: Path) -> None:
    """Make runs/ in a folder.

    A pre-training; a detector with two seeds, whose predictions are near the truth, and one on
    VOC; a segmentation.
    """
    patch = pytest.MonkeyPatch()
    patch.setattr(train, "LOG_PERIOD", 1)
    sizes = {"batch_size": 30, "image_size": 64, "knn_every": 1, "knn_images": 30}
    pretrain(small(epochs=3, **sizes), output / "runs/pretrain/lewel")
    folder = output / "runs/transfer/seed0"
    train.transfer(tiny(), folder)
    name = "demo_coco_val"
    truth = COCO(MetadataCatalog.get(name).json_file)
    for seed in range(2):
        folder = output / f"runs/transfer/seed{seed}"
        if seed:
            shutil.copytree(output / "runs/transfer/seed0", folder)
        cfg = tiny().detectron2()
        found = evaluate(cfg, DETECTION, Oracle(perturbed(truth, seed)), str(folder / "inference"))
        rewrite(folder / "metrics.json", seed=seed, **{k: round(v, 4) for k, v in found.items()})
    voc = resolve(read(CONFIGS / "demo_voc_R_18_FPN.yaml"), overrides=tuple(TINY.split()))
    train.transfer(voc, output / "runs/transfer/voc")
    segment(tiny_segmentation(), output / "runs/segmentation/fcn")
    for checkpoint in output.glob("runs/*/*/model_*.pth"):  # nobody reads them
        checkpoint.unlink()
    patch.undo()


def rewrite(file: Path, **changes: Any) -> None:
    """Change what a JSON file says."""
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
