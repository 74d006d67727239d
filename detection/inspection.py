"""What is in a config's datasets: counted, and what is wrong with them named, before training."""

import logging
import os
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from detectron2.utils import comm

from common.errors import UserError
from detection.datasets import image_list

log = logging.getLogger("detection")

TOLERANCE = 1.0  # pixels that a box may reach beyond its image: COCO's are rounded


@dataclass(frozen=True)
class Report:
    """What was found in a dataset.

    Attributes:
        name: Detectron2's name of it.
        images: how many are listed.
        objects: how many are annotated; None where masks are annotated instead.
        missing: files that are listed and not there, images and masks.
        outside: images' names with a box that reaches beyond them, once for each such box.
        empty: classes without an object.
    """

    name: str
    images: int
    objects: int | None
    missing: tuple[str, ...]
    outside: tuple[str, ...]
    empty: tuple[str, ...]


def inspect_datasets(cfg: Any) -> None:
    """Count what is in a config's datasets, and warn of what is wrong with them.

    The main process reads them; all processes of the job must call this.

    Raises:
        UserError: in all processes, if a dataset cannot be read, the test set lacks a file (its
            score would be false) or a training set has none (an image that is missing is passed
            over, as one that cannot be read).
    """
    message = ""
    if comm.is_main_process():
        try:
            for name in dict.fromkeys((*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)):
                report = inspect(name)
                _tell(report)
                _check(report, name in cfg.DATASETS.TEST)
        except UserError as error:
            message = str(error)
    message = comm.all_gather(message)[0]
    if message:
        raise UserError(message)


def inspect(name: str) -> Report:
    """Read the annotations of a dataset, and look which of its files are there.

    Raises:
        UserError: if they cannot be read, naming the file where that is known.
    """
    records = _read(name)
    files = [r[key] for r in records for key in ("file_name", "sem_seg_file_name") if key in r]
    annotated = [r for r in records if "annotations" in r]
    labels = Counter(a["category_id"] for r in annotated for a in r["annotations"])
    classes = MetadataCatalog.get(name).get("thing_classes", []) if annotated else []
    return Report(
        name,
        len(records),
        labels.total() if annotated else None,
        tuple(_missing(files)),
        tuple(r["file_name"] for r in annotated for a in r["annotations"] if _is_outside(a, r)),
        tuple(one for label, one in enumerate(classes) if not labels[label]),
    )


def _tell(report: Report) -> None:
    objects = "" if report.objects is None else f", {report.objects:,} objects"
    log.info("dataset %s: %s images%s", report.name, f"{report.images:,}", objects)
    if report.missing:
        _warn(report, report.missing, "missing files, passed over in training")
    if report.outside:
        _warn(report, report.outside, "boxes that reach outside their images, cut there")
    if report.empty:
        _warn(report, report.empty, "classes without an object")


def _warn(report: Report, found: tuple[str, ...], what: str) -> None:
    shown = ", ".join(found[:3]) + (", ..." if len(found) > 3 else "")
    log.warning("dataset %s: %s: %d (%s)", report.name, what, len(found), shown)


def _check(report: Report, is_test: bool) -> None:
    if not report.images:
        raise UserError(f"dataset {report.name} is empty; unpack it again.")
    if not report.missing:
        return
    if is_test or len(report.missing) >= report.images:
        raise UserError(
            f"dataset {report.name} lacks {len(report.missing)} files of its {report.images} "
            f"images, such as {report.missing[0]}; unpack it again."
        )


def _missing(files: list[str]) -> Iterable[str]:
    """Those that are not there; a folder is listed once, for looking at each file takes minutes."""
    listed: dict[str, set[str]] = {}
    for file in files:
        folder, name = os.path.split(file)
        if folder not in listed:
            listed[folder] = set(os.listdir(folder)) if os.path.isdir(folder) else set()
        if name not in listed[folder]:
            yield file


def _is_outside(annotation: dict[str, Any], record: dict[str, Any]) -> bool:
    x, y, right, bottom = annotation["bbox"]
    if annotation["bbox_mode"] == BoxMode.XYWH_ABS:
        right, bottom = x + right, y + bottom
    return bool(
        min(x, y) < -TOLERANCE
        or right > record["width"] + TOLERANCE
        or bottom > record["height"] + TOLERANCE
    )


def _read(name: str) -> list[dict[str, Any]]:
    try:
        return list(DatasetCatalog.get(name))
    except UserError:
        raise
    except Exception as error:  # a file that was cut short raises almost anything
        reason = " ".join(str(error).split()) or type(error).__name__
        where = MetadataCatalog.get(name).get("json_file") or _broken_xml(name)
        raise UserError(
            f"dataset {name} cannot be read: {f'{where}: ' if where else ''}{reason}; "
            "unpack it again."
        ) from error


def _broken_xml(name: str) -> str:
    """The first annotation of a VOC dataset that is missing, no XML, or of an unknown class."""
    listed, metadata = image_list(name), MetadataCatalog.get(name)
    if listed is None or not metadata.get("dirname"):
        return ""
    for one in listed.read_text().split():
        path = Path(metadata.dirname) / "Annotations" / f"{one}.xml"
        try:
            found = {item.findtext("name") for item in ET.parse(path).iter("object")}
        except (OSError, ET.ParseError):
            return str(path)
        if not found <= {*metadata.thing_classes}:
            return str(path)
    return ""
