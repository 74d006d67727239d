"""Inspection of a job's datasets before the first iteration: annotations, files, image headers."""

import contextlib
import logging
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from PIL import Image

from common.distributed import by_main
from common.errors import UserError
from detection.coco import in_place, require_usable, some, write_repaired
from detection.datasets import advice, nothing_to_train_on, require_files
from detection.mapper import UNREADABLE
from detection.voc import broken_annotation

log = logging.getLogger("detection")

TOLERANCE = 1.0  # pixels that a box may reach beyond its image: COCO's are rounded
SAMPLE = 5000  # images of a training set whose headers are read; others' sizes are seen in training
READERS = 16  # headers read at once: on a network disk, time goes into waiting
ORIENTATION, QUARTER_TURNS = 0x0112, (5, 6, 7, 8)  # EXIF's, by which Detectron2 turns images


@contextlib.contextmanager
def usable_datasets(cfg: Any, folder: Path) -> Iterator[None]:
    """The datasets of a job for the block, inspected, and with COCO's files as they were repaired.

    The main process reads and repairs; all processes must call this.
    """
    require_files(cfg)
    with in_place(by_main(lambda: inspect_datasets(cfg, folder))):
        yield


def inspect_datasets(cfg: Any, folder: Path) -> dict[str, Path]:
    """Count what is in a config's datasets, warn of what is wrong with them, and repair COCO files.

    Returns:
        The repaired files, written to ``folder/annotations``, by the names of their datasets.

    Raises:
        UserError: if a dataset cannot be used at all; or a test set lacks a file or has one of
            another size than is annotated, for its score would be false.
    """
    for sentence in require_usable(cfg):
        log.warning("%s", sentence)
    repaired = write_repaired(cfg, folder / "annotations")
    with in_place(repaired):
        for name in dict.fromkeys((*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)):
            _inspect(cfg, name)
    return repaired


def _inspect(cfg: Any, name: str) -> None:
    is_test, metadata = name in cfg.DATASETS.TEST, MetadataCatalog.get(name)
    source = str(metadata.get("json_file") or metadata.get("dirname") or "its annotations")
    records = _read(name, source)
    annotated = [r for r in records if "annotations" in r]  # others have masks of classes
    labels = Counter(a["category_id"] for r in annotated for a in r["annotations"])
    objects = f", {labels.total():,} objects" if annotated else ""
    log.info("dataset %s: %s images%s", name, f"{len(records):,}", objects)
    if not records:
        raise UserError(f"dataset {name} is empty; {advice(name, source)}.")

    files = [r[key] for r in records for key in ("file_name", "sem_seg_file_name") if key in r]
    missing = list(_missing(files))
    if missing and (is_test or len(missing) >= len(records)):
        raise UserError(
            f"dataset {name} lacks {len(missing)} files of its {len(records)} images, such as "
            f"{missing[0]}; {advice(name, source)}."
        )
    _warn(name, missing, "missing files, passed over in training")

    step = 1 if is_test else max(1, math.ceil(len(annotated) / SAMPLE))
    absent = set(missing)
    seen = [r for r in annotated[::step] if r["file_name"] not in absent]
    with ThreadPoolExecutor(READERS) as pool:
        mismatched = [told for told in pool.map(_mismatch, seen) if told]
    if mismatched and (is_test or len(mismatched) == len(seen)):
        used, count = ("scored by", len(records)) if is_test else ("trained on", len(seen))
        raise UserError(
            f"dataset {name} cannot be {used}: {len(mismatched):,} of {count:,} images are not as "
            f"annotated, such as {mismatched[0]}; mend them or {source}."
        )
    _warn(name, mismatched, f"images not as annotated, passed over, of {len(seen):,} looked at")

    outside = [r["file_name"] for r in annotated for a in r["annotations"] if _is_outside(a, r)]
    _warn(name, outside, "boxes that reach outside their images, cut there")
    classes = metadata.get("thing_classes", []) if annotated else []
    empty = [one for label, one in enumerate(classes) if not labels[label]]
    _warn(name, empty, "classes without an object")
    if is_test and metadata.get("evaluator_type") == "pascal_voc":
        wrong = broken_annotation(name, scored=True)
        if wrong:
            raise UserError(f"dataset {name} cannot be scored by: {wrong}; mend the file.")
    to_train_on = name in cfg.DATASETS.TRAIN and cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
    if to_train_on and annotated and not labels:
        raise nothing_to_train_on(name, source)


def _warn(name: str, found: Sequence[str], what: str) -> None:
    if found:
        log.warning("dataset %s: %s: %d (%s)", name, what, len(found), some(found))


def _read(name: str, source: str) -> list[dict[str, Any]]:
    try:
        return list(DatasetCatalog.get(name))
    except Exception as error:  # a file that was cut short raises almost anything
        told = " ".join(str(error).split()) or type(error).__name__
        where = MetadataCatalog.get(name).get("json_file")
        told = f"{where}: {told}" if where else broken_annotation(name) or told
        raise UserError(
            f"dataset {name} cannot be read: {told}; {advice(name, source)}."
        ) from error


def _missing(files: Iterable[str]) -> Iterator[str]:
    """Files that are not there; a folder is listed once, for looking at each takes minutes."""
    listed: dict[str, set[str]] = {}
    for file in files:
        folder, name = os.path.split(file)
        if folder not in listed:
            listed[folder] = set(os.listdir(folder)) if os.path.isdir(folder) else set()
        if name not in listed[folder]:
            yield file


def _mismatch(record: dict[str, Any]) -> str:
    """An image whose header disagrees with what is annotated, and how; "" if it agrees."""
    try:
        with Image.open(record["file_name"]) as image:
            (width, height), turned = image.size, False
            with contextlib.suppress(Exception):  # broken EXIF data raise anything
                turned = image.getexif().get(ORIENTATION) in QUARTER_TURNS
    except UNREADABLE as error:
        return f"{record['file_name']} (cannot be read: {error})"
    seen = (height, width) if turned else (width, height)
    annotated = (record.get("width", seen[0]), record.get("height", seen[1]))
    if seen == annotated:
        return ""
    why = ", for its EXIF data turn it by 90 degrees" if turned else ""
    return (
        f"{record['file_name']} (read as {seen[0]} x {seen[1]}{why}; annotated as "
        f"{annotated[0]} x {annotated[1]})"
    )


def _is_outside(annotation: dict[str, Any], record: dict[str, Any]) -> bool:
    x, y, right, bottom = annotation["bbox"]
    if annotation["bbox_mode"] == BoxMode.XYWH_ABS:
        right, bottom = x + right, y + bottom
    return bool(
        min(x, y) < -TOLERANCE
        or right > record["width"] + TOLERANCE
        or bottom > record["height"] + TOLERANCE
    )
