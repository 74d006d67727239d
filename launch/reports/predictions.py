"""Test sets of runs, and what detectors and segmentation networks predicted on them."""

import json
import xml.etree.ElementTree as ET
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog

import segmentation  # noqa: F401  registers, as detection does, the data sets of our configs
from common.errors import UserError
from detection.evaluation import PER_CLASS, VOC_PREDICTIONS
from detection.own_data import OwnDataset
from detection.train import DATASETS
from launch.reports.collect import Run

COCO_PREDICTIONS = "coco_instances_results.json"  # Detectron2's evaluators' own
MASK_PREDICTIONS = "sem_seg_predictions.json"


class GroundTruth(NamedTuple):
    """The ground truth of a test set whose files are on this machine."""

    name: str
    classes: list[str]
    images: dict[Any, Path]  # by the ids of predictions
    annotations: dict[str, Any]  # in COCO's format; of segmentation, a mask's file by image


def ground_truth(run: Run) -> GroundTruth:
    """The ground truth of a run's test set; a UserError if it is not on this machine."""
    name = dataset_name(run)
    _register_own(run)
    if name not in DatasetCatalog.list():
        raise UserError(f"the test set {name} is not known here")
    metadata = MetadataCatalog.get(name)
    try:
        if run.kind == "segmentation":
            records = DatasetCatalog.get(name)
            images = {Path(r["file_name"]).name: Path(r["file_name"]) for r in records}
            masks = {Path(r["file_name"]).name: r["sem_seg_file_name"] for r in records}
            return GroundTruth(name, list(metadata.stuff_classes), images, masks)
        if metadata.evaluator_type == "pascal_voc":
            root = Path(metadata.dirname)
            truth = _voc_truth(root, metadata.split, list(metadata.thing_classes))
            images = {i["id"]: root / "JPEGImages" / i["file_name"] for i in truth["images"]}
        else:
            repaired = run.folder / "annotations" / f"{name}.json"
            file = repaired if repaired.exists() else Path(metadata.json_file)
            truth = json.loads(file.read_text())
            root = Path(metadata.image_root)
            images = {i["id"]: root / i["file_name"] for i in truth["images"]}
    except FileNotFoundError as error:
        raise UserError(
            f"the test set {name} is not on this machine: {error.filename} is not there; set "
            "DETECTRON2_DATASETS"
        ) from error
    return GroundTruth(name, [c["name"] for c in truth["categories"]], images, truth)


def dataset_name(run: Run) -> str:
    """The name of a run's test set; "" if its configuration does not tell."""
    try:
        (name,) = yaml.safe_load(run.config)["DATASETS"]["TEST"]
        return str(name)
    except (yaml.YAMLError, KeyError, TypeError, ValueError):
        return ""


def _register_own(run: Run) -> None:
    file = run.folder / DATASETS
    if file.exists():
        for one in json.loads(file.read_text()):
            one["categories"] = tuple((number, name) for number, name in one["categories"])
            OwnDataset(**one).register()


def per_class(run: Run) -> dict[str, dict[str, float | None]]:
    """Scores of each class by the score's name, in percent."""
    ious = {k.removeprefix("IoU-"): v for k, v in run.metrics.items() if k.startswith("IoU-")}
    if ious:
        return {"IoU": ious}
    try:
        found: dict[str, dict[str, float | None]] = json.loads(_inference(run, PER_CLASS))
        return found
    except (OSError, ValueError):
        return {}


def detections(run: Run, found: GroundTruth) -> list[dict[str, Any]]:
    """A detector's predictions in COCO's format; a UserError if the run has none."""
    try:
        if (run.folder / "inference" / VOC_PREDICTIONS).exists():
            lines = json.loads(_inference(run, VOC_PREDICTIONS))
            numbers = {path.stem: number for number, path in found.images.items()}
            return [
                {"image_id": numbers[image], "category_id": found.classes.index(name) + 1,
                 "bbox": _from_voc(*map(float, box)), "score": float(score)}
                for name, of_class in lines.items()
                for image, score, *box in (line.split() for line in of_class)
            ]  # fmt: skip
        predicted: list[dict[str, Any]] = json.loads(_inference(run, COCO_PREDICTIONS))
        return predicted
    except FileNotFoundError as error:
        raise UserError(f"{run.folder.name} has kept no predictions") from error
    except ValueError as error:
        raise UserError(f"the predictions of {run.folder.name} cannot be read") from error


def masks(run: Run) -> list[dict[str, Any]]:
    """A segmentation's predictions: a class's run-length code a row, of an image's file name."""
    try:
        rows = json.loads(_inference(run, MASK_PREDICTIONS))
        return [row | {"image_id": Path(row["file_name"]).name} for row in rows]
    except FileNotFoundError as error:
        raise UserError(f"{run.folder.name} has kept no predictions") from error


def by_image(rows: list[dict[str, Any]]) -> dict[Any, list[dict[str, Any]]]:
    """Predictions by the image that they are of."""
    found = defaultdict(list)
    for row in rows:
        found[row["image_id"]].append(row)
    return found


def _inference(run: Run, name: str) -> str:
    return (run.folder / "inference" / name).read_text()


def _voc_truth(root: Path, split: str, classes: list[str]) -> dict[str, Any]:
    """VOC's objects in COCO's format, difficult ones as COCO's crowds, which count for nothing."""
    images: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    names = (root / "ImageSets" / "Main" / f"{split}.txt").read_text().split()
    for number, name in enumerate(names):
        tree = ET.parse(root / "Annotations" / f"{name}.xml")
        width, height = (int(tree.findtext(f"size/{side}", "0")) for side in ("width", "height"))
        images.append({"id": number, "file_name": f"{name}.jpg", "width": width, "height": height})
        for item in tree.iter("object"):
            corners = ("xmin", "ymin", "xmax", "ymax")
            box = _from_voc(*(float(item.findtext(f"bndbox/{c}", "0")) for c in corners))
            objects.append(
                {"id": len(objects) + 1, "image_id": number, "bbox": box, "area": box[2] * box[3],
                 "category_id": classes.index(item.findtext("name", "")) + 1,
                 "iscrowd": int(item.findtext("difficult", "0").strip() == "1")}
            )  # fmt: skip
    categories = [{"id": i, "name": name} for i, name in enumerate(classes, 1)]
    return {"images": images, "annotations": objects, "categories": categories}


def _from_voc(x0: float, y0: float, x1: float, y1: float) -> list[float]:
    """Corners, counted from 1 and inside, as COCO's x, y, width, height."""
    return [x0 - 1, y0 - 1, x1 - x0 + 1, y1 - y0 + 1]
