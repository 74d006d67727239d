"""Let a network learn a few real images by heart, with the project's model, mapper and evaluator.

    DETECTRON2_DATASETS=/path/to/datasets python -m benchmarks.overfit --task segmentation

A ResNet-18, or the model of another config, starts from nothing and sees 8 images of VOC 2012 or
COCO again and again, without augmentation; it is then scored on them. Nothing is written but a
temporary folder. Exit status 1 if the score is not what a network without a fault gets.

The images are made small and square: where a crop is padded, training and test differ, since the
FCN sees 192 pixels far. They are those whose smallest object is largest: a network of stride 16
cannot draw an object of a few pixels (logits that are fitted to VOC's first 8 masks themselves
reach a mIoU of 80 at this size, to those of these 98).
"""

import json
import math
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from common.errors import UserError, command

CONFIGS = Path(__file__).resolve().parent.parent / "det_configs"


@dataclass(frozen=True)
class Options:
    """The images, and how they are learned.

    Attributes:
        task: Segmentation of VOC 2012's train images, or detection of COCO's train2017.
        images: Number of images.
        size: Their side in pixels; FCN-16s pads it to a multiple of 16 plus 1.
        config: Name of a file in det_configs/, whose model is trained. Default: the task's.
        iterations: Iterations, of all images each.
        lr: Learning rate. Default: the task's.
    """

    task: Literal["segmentation", "detection"]
    images: int = 8
    size: int = 161
    config: str | None = None
    iterations: int = 400
    lr: float | None = None


@dataclass(frozen=True)
class Task:
    """A task, and the score that a network reaches in it."""

    prepare: Callable[[Path, Path, Options], None]  # copies images to a folder, registers them
    dataset: str  # their name then, Detectron2's
    config: str  # whose model is trained
    metric: str
    wanted: float  # in percent
    lr: float
    overrides: str  # of the config


def prepare_voc(root: Path, folder: Path, options: Options) -> None:
    """Images of VOC 2012's train list."""
    from PIL import Image

    from segmentation import datasets

    records = datasets.load(root / "VOC2012", "train", "SegmentationClass")
    records = sorted(records, key=_smallest_class, reverse=True)[: options.images]
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (folder / name).mkdir(parents=True)
    for record in records:
        for key, kind, how in (
            ("file_name", "JPEGImages", Image.Resampling.BILINEAR),
            ("sem_seg_file_name", "SegmentationClass", Image.Resampling.NEAREST),
        ):
            path = Path(record[key])
            square = Image.open(path).resize((options.size, options.size), how)
            square.save(folder / kind / path.name)
    listed = datasets.list_of(folder, "train")
    listed.write_text("".join(f"{record['image_id']}\n" for record in records))
    datasets.register("overfit_voc", folder, "train", "SegmentationClass")


def _smallest_class(record: dict[str, Any]) -> float:
    """The share of the image that its smallest class covers."""
    import numpy as np

    from segmentation.masks import read_mask

    mask = read_mask(record["sem_seg_file_name"], 21, 255)
    pixels = np.bincount(mask[mask != 255], minlength=21)[1:]
    return float(pixels[pixels > 0].min() / mask.size) if pixels.any() else 0.0


def prepare_coco(root: Path, folder: Path, options: Options) -> None:
    """Images of COCO's train2017 that have objects, and no crowds."""
    from detectron2.data.datasets import register_coco_instances
    from PIL import Image

    content = json.loads((root / "coco/annotations/instances_train2017.json").read_text())
    crowded = {a["image_id"] for a in content["annotations"] if a["iscrowd"]}
    objects = [a for a in content["annotations"] if a["image_id"] not in crowded]
    sides: dict[int, float] = {}  # the smallest of an image's boxes' sides, in pixels
    for one in objects:
        sides[one["image_id"]] = min(sides.get(one["image_id"], math.inf), *one["bbox"][2:])
    chosen_ids = sorted(sides, key=lambda i: sides[i], reverse=True)[: options.images]
    images = [i for i in content["images"] if i["id"] in chosen_ids]
    chosen, kept = [], []
    for image in images:
        opened = Image.open(root / "coco" / "train2017" / image["file_name"]).convert("RGB")
        opened.resize((options.size, options.size)).save(folder / image["file_name"], quality=95)
        chosen.append(image | {"width": options.size, "height": options.size})
        ratios = options.size / image["width"], options.size / image["height"]
        kept += [_scaled(a, *ratios) for a in objects if a["image_id"] == image["id"]]
    content |= {"images": chosen, "annotations": kept}
    (folder / "instances.json").write_text(json.dumps(content))
    register_coco_instances("overfit_coco", {}, str(folder / "instances.json"), str(folder))


def _scaled(annotation: dict[str, Any], across: float, down: float) -> dict[str, Any]:
    x, y, width, height = annotation["bbox"]
    rest = {k: annotation[k] for k in ("id", "image_id", "category_id", "iscrowd")}
    return {
        **rest,
        "bbox": [across * x, down * y, across * width, down * height],
        "area": annotation["area"] * across * down,
    }


TASKS = {
    "segmentation": Task(
        prepare=prepare_voc,
        dataset="overfit_voc",
        config="demo_voc_R_18_FCN",
        metric="mIoU",
        wanted=90,
        lr=0.05,
        overrides="INPUT.MIN_SIZE_TRAIN (1.0,1.0) INPUT.MIN_SIZE_TRAIN_SAMPLING relative_range "
        "INPUT.CROP.SIZE [{size},{size}] INPUT.CROP.TYPE absolute INPUT.MIN_SIZE_TEST 0",
    ),
    "detection": Task(
        prepare=prepare_coco,
        dataset="overfit_coco",
        config="demo_R_18_FPN",
        metric="box_AP50",
        wanted=50,
        lr=0.02,
        overrides="MODEL.MASK_ON False MODEL.ROI_HEADS.NUM_CLASSES 80 INPUT.MIN_SIZE_TRAIN (0,) "
        "INPUT.MIN_SIZE_TEST 0 MODEL.RPN.POST_NMS_TOPK_TEST 100 "
        "MODEL.ROI_HEADS.POSITIVE_FRACTION 0.5",
    ),
}
COMMON = (
    "MODEL.DEVICE cpu DATASETS.TRAIN ('{name}',) DATASETS.TEST ('{name}',) INPUT.RANDOM_FLIP none "
    "SOLVER.IMS_PER_BATCH {images} SOLVER.MAX_ITER {iterations} SOLVER.STEPS ({first},{second}) "
    "SOLVER.WARMUP_ITERS 20 TEST.PRECISE_BN.NUM_ITER 5 DATALOADER.NUM_WORKERS 0 "
    "DATALOADER.ASPECT_RATIO_GROUPING False"
)


def overfit(options: Options, folder: Path) -> tuple[float, float]:
    """Train and score; the task's metric in percent, and the loss at the end."""
    import detection.train
    import segmentation.train
    from detection.config import read, resolve

    root, task = Path(os.environ.get("DETECTRON2_DATASETS", "datasets")), TASKS[options.task]
    try:
        (folder / "data").mkdir()
        task.prepare(root, folder / "data", options)
    except OSError as error:
        raise UserError(f"{error}; set DETECTRON2_DATASETS to the folder that has it.") from error
    words = f"{COMMON} {task.overrides}".format(
        name=task.dataset,
        images=options.images,
        iterations=options.iterations,
        first=options.iterations * 7 // 10,
        second=options.iterations * 9 // 10,
        size=options.size,
    )
    config = resolve(
        read(CONFIGS / f"{options.config or task.config}.yaml"),
        lr=options.lr or task.lr,
        overrides=tuple(words.split()),
    )
    entry = {"segmentation": segmentation.train.transfer, "detection": detection.train.transfer}
    score = entry[options.task](config, folder / "run")[task.metric] or 0.0
    last = (folder / "run" / "metrics.jsonl").read_text().splitlines()[-1]
    return score, json.loads(last)["total_loss"]


@command
def main() -> int:
    """The console command."""
    options, start = tyro.cli(Options, description=__doc__), time.perf_counter()
    task = TASKS[options.task]
    with tempfile.TemporaryDirectory() as folder:
        score, loss = overfit(options, Path(folder))
    print(
        f"{options.task} of {options.images} images by heart: {task.metric} {score:.1f} (wanted: "
        f"more than {task.wanted:g}), loss {loss:.3f}, {time.perf_counter() - start:.0f} s"
    )
    return int(score <= task.wanted)


if __name__ == "__main__":
    main()
