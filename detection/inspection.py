"""What is in a config's datasets: counted, and what is wrong with them named, before training."""

import logging
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from detectron2.utils import comm

from common.errors import UserError
from detection.annotations import broken_run_lengths, flaw, is_crowd, is_run_lengths
from detection.voc import broken_annotation

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
        usable: images with an object to train on or to score by; None likewise.
        broken: images' names with an object that cannot be used, and why.
        run_lengths: images' names with an object whose mask is in run lengths.
        outside: images' names with a box that reaches beyond them, once for each such box.
        empty: classes without an object.
    """

    name: str
    images: int
    objects: int | None
    missing: tuple[str, ...]
    usable: int | None
    broken: tuple[str, ...]
    run_lengths: tuple[str, ...]
    outside: tuple[str, ...]
    empty: tuple[str, ...]


def inspect_datasets(cfg: Any) -> None:
    """Count what is in a config's datasets, and warn of what is wrong with them.

    The main process reads them; all processes of the job must call this.

    Raises:
        UserError: in all processes, if a dataset cannot be read, the test set lacks a file or has
            an annotation that cannot be used (its score would be false), or a training set has
            nothing to train on (an image that is missing or that has such an annotation is passed
            over, as one that cannot be read).
    """
    message = ""
    if comm.is_main_process():
        try:
            for name in dict.fromkeys((*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)):
                is_test = name in cfg.DATASETS.TEST
                decode = is_test or _wants_polygons(cfg)
                report = inspect(name, is_test, cfg.MODEL.MASK_ON, decode)
                _tell(report, is_test)
                _check_files(report, is_test)
                if is_test:
                    _check_test(report)
                if name in cfg.DATASETS.TRAIN:
                    _check_training(report, cfg)
        except UserError as error:
            message = str(error)
    message = comm.all_gather(message)[0]
    if message:
        raise UserError(message)


def inspect(name: str, is_test: bool = False, masks: bool = False, decode: bool = False) -> Report:
    """Read the annotations of a dataset, and look which of its files are there.

    Args:
        name: Detectron2's name of it.
        is_test: whether it is scored by, and so of crowds too.
        masks: whether objects need a mask.
        decode: whether to look into masks in run lengths, which takes a while.

    Raises:
        UserError: if they cannot be read, naming the file where that is known.
    """
    records = _read(name)
    files = [r[key] for r in records for key in ("file_name", "sem_seg_file_name") if key in r]
    annotated = [r for r in records if "annotations" in r]
    labels = Counter(a["category_id"] for r in annotated for a in r["annotations"])
    classes = MetadataCatalog.get(name).get("thing_classes", []) if annotated else []
    usable, broken, run_lengths = 0, [], []
    for record in annotated:
        used = [a for a in record["annotations"] if is_test or not is_crowd(a)]
        flaws = (_flaw(a, record, masks, masks and decode) for a in used)
        wrong = next((found for found in flaws if found), "")
        if wrong:
            broken.append(f"{record['file_name']}: {wrong}")
            continue
        usable += bool(used)
        if any(is_run_lengths(a) and not is_crowd(a) for a in used):
            run_lengths.append(record["file_name"])
    return Report(
        name,
        len(records),
        labels.total() if annotated else None,
        tuple(_missing(files)),
        usable if annotated else None,
        tuple(broken),
        tuple(run_lengths),
        tuple(r["file_name"] for r in annotated for a in r["annotations"] if _is_outside(a, r)),
        tuple(one for label, one in enumerate(classes) if not labels[label]),
    )


def _flaw(annotation: dict[str, Any], record: dict[str, Any], masks: bool, decode: bool) -> str:
    wrong = flaw(annotation, masks)
    if decode and not wrong and is_run_lengths(annotation):
        return broken_run_lengths(annotation, record)
    return wrong


def _tell(report: Report, is_test: bool) -> None:
    objects = "" if report.objects is None else f", {report.objects:,} objects"
    log.info("dataset %s: %s images%s", report.name, f"{report.images:,}", objects)
    if report.missing and not is_test:
        _warn(report, report.missing, "missing files, passed over in training")
    if report.broken and not is_test:
        _warn(report, report.broken, "images with a broken annotation, passed over in training")
    if report.outside:
        _warn(report, report.outside, "boxes that reach outside their images, cut there")
    if report.empty:
        _warn(report, report.empty, "classes without an object")


def _warn(report: Report, found: tuple[str, ...], what: str) -> None:
    shown = ", ".join(found[:3]) + (", ..." if len(found) > 3 else "")
    log.warning("dataset %s: %s: %d (%s)", report.name, what, len(found), shown)


def _check_files(report: Report, is_test: bool) -> None:
    if not report.images:
        raise UserError(f"dataset {report.name} is empty; unpack it again.")
    if not report.missing:
        return
    if is_test or len(report.missing) >= report.images:
        raise UserError(
            f"dataset {report.name} lacks {len(report.missing)} files of its {report.images} "
            f"images, such as {report.missing[0]}; unpack it again."
        )


def _check_test(report: Report) -> None:
    if report.broken:
        raise UserError(
            f"dataset {report.name} cannot be scored by: {len(report.broken)} of its images have a "
            f"broken annotation, such as {report.broken[0]}; mend {_source(report.name)}."
        )
    if MetadataCatalog.get(report.name).get("evaluator_type") == "pascal_voc":
        wrong = broken_annotation(report.name, scored=True)
        if wrong:
            raise UserError(f"dataset {report.name} cannot be scored by: {wrong}; mend the file.")


def _check_training(report: Report, cfg: Any) -> None:
    name, source = report.name, _source(report.name)
    if report.usable == 0 and report.broken:
        raise UserError(
            f"dataset {name} has no image that can be trained on: the annotations of "
            f"{len(report.broken)} are broken, such as {report.broken[0]}; mend {source}."
        )
    if report.usable == 0 and cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS:
        raise UserError(
            f"dataset {name} has no object to train on; annotate some in {source}, or leave it out "
            "of DATASETS.TRAIN."
        )
    if report.run_lengths and cfg.MODEL.MASK_ON and _wants_polygons(cfg):
        raise UserError(
            f"INPUT.MASK_FORMAT is polygon, but dataset {name} has masks in run lengths, such as "
            f"of {report.run_lengths[0]}; set it to bitmask."
        )


def _wants_polygons(cfg: Any) -> bool:
    return bool(cfg.INPUT.MASK_FORMAT == "polygon")


def _source(name: str) -> str:
    """Where the annotations of a dataset are, as far as that is known."""
    metadata = MetadataCatalog.get(name)
    return str(metadata.get("json_file") or metadata.get("dirname") or "its annotations")


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
    if flaw(annotation, masks=False):
        return False
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
        told = " ".join(str(error).split()) or type(error).__name__
        where = MetadataCatalog.get(name).get("json_file")
        told = f"{where}: {told}" if where else broken_annotation(name) or told
        raise UserError(f"dataset {name} cannot be read: {told}; unpack it again.") from error
