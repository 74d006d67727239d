"""What is in a config's datasets: counted, and what is wrong with them named, before training."""

import contextlib
import logging
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from detectron2.utils import comm
from PIL import Image

from common.errors import UserError
from detection.coco import advice, in_place, require_usable, write_repaired
from detection.datasets import require_files
from detection.mapper import UNREADABLE
from detection.voc import broken_annotation

log = logging.getLogger("detection")

TOLERANCE = 1.0  # pixels that a box may reach beyond its image: COCO's are rounded
SAMPLE = 5000  # images of a training set whose headers are read; others' sizes are seen in training
READERS = 16  # headers read at once: on a network disk, time goes into waiting
ORIENTATION, QUARTER_TURNS = 0x0112, (5, 6, 7, 8)  # EXIF's, by which Detectron2 turns images


@dataclass(frozen=True)
class Report:
    """What was found in a dataset.

    Attributes:
        name: Detectron2's name of it.
        images: how many are listed.
        objects: how many are annotated; None where masks are annotated instead.
        missing: files that are listed and not there, images and masks.
        mismatched: images' names whose headers cannot be read or tell another size than is
            annotated, and what; of those that were looked at.
        looked_at: how many these are.
        outside: images' names with a box that reaches beyond them, once for each such box.
        empty: classes without an object.
    """

    name: str
    images: int
    objects: int | None
    missing: tuple[str, ...]
    mismatched: tuple[str, ...]
    looked_at: int
    outside: tuple[str, ...]
    empty: tuple[str, ...]


@contextlib.contextmanager
def usable_datasets(cfg: Any, folder: Path) -> Iterator[None]:
    """The datasets of a job for the block: judged and counted, COCO's files as they were repaired.

    The main process reads them and writes what was repaired; all processes must call this.

    Args:
        cfg: a Detectron2 config.
        folder: of the run.

    Raises:
        UserError: in all processes, as :func:`detection.datasets.require_datasets` and
            :func:`inspect_datasets`.
    """
    require_files(cfg)
    files, message = {}, ""
    if comm.is_main_process():
        try:
            for sentence in require_usable(cfg):
                log.warning("%s", sentence)
            files = write_repaired(cfg, folder / "annotations")
        except UserError as error:
            message = str(error)
    files, message = comm.all_gather((files, message))[0]
    if message:
        raise UserError(message)
    with contextlib.ExitStack() as stack:
        for name, file in files.items():
            stack.enter_context(in_place(name, file))
        inspect_datasets(cfg)
        yield


def inspect_datasets(cfg: Any) -> None:
    """Count what is in a config's datasets, and warn of what is wrong with them.

    The main process reads them; all processes of the job must call this.

    Raises:
        UserError: in all processes, if a dataset cannot be read, the test set lacks a file or has
            one of another size than is annotated (its score would be false), or a training set has
            nothing to train on (such an image is passed over, as one that cannot be read).
    """
    message = ""
    if comm.is_main_process():
        try:
            for name in dict.fromkeys((*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)):
                is_test = name in cfg.DATASETS.TEST
                report = inspect(name, None if is_test else SAMPLE)
                _tell(report, is_test)
                _check_images(report, is_test)
                if is_test:
                    _check_test(report)
                if name in cfg.DATASETS.TRAIN:
                    _check_training(report, cfg)
        except UserError as error:
            message = str(error)
    message = comm.all_gather(message)[0]
    if message:
        raise UserError(message)


def inspect(name: str, sample: int | None = None) -> Report:
    """Read the annotations of a dataset, and look which of its files are there, and at headers.

    Args:
        name: Detectron2's name of it.
        sample: how many images' headers to read, evenly spread over the dataset; None for all.

    Raises:
        UserError: if they cannot be read, naming the file where that is known.
    """
    records = _read(name)
    files = [r[key] for r in records for key in ("file_name", "sem_seg_file_name") if key in r]
    annotated = [r for r in records if "annotations" in r]
    labels = Counter(a["category_id"] for r in annotated for a in r["annotations"])
    classes = MetadataCatalog.get(name).get("thing_classes", []) if annotated else []
    missing = tuple(_missing(files))
    step = max(1, math.ceil(len(annotated) / (sample or math.inf)))
    absent = set(missing)
    looked_at = [r for r in annotated[::step] if r["file_name"] not in absent]
    with ThreadPoolExecutor(READERS) as pool:
        mismatched = tuple(filter(None, pool.map(_mismatch, looked_at)))
    return Report(
        name,
        len(records),
        labels.total() if annotated else None,
        missing,
        mismatched,
        len(looked_at),
        tuple(r["file_name"] for r in annotated for a in r["annotations"] if _is_outside(a, r)),
        tuple(one for label, one in enumerate(classes) if not labels[label]),
    )


def _mismatch(record: dict[str, Any]) -> str:
    """How an image's header disagrees with what is annotated; "" if it does not."""
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


def _tell(report: Report, is_test: bool) -> None:
    objects = "" if report.objects is None else f", {report.objects:,} objects"
    log.info("dataset %s: %s images%s", report.name, f"{report.images:,}", objects)
    if report.missing and not is_test:
        _warn(report, report.missing, "missing files, passed over in training")
    if report.mismatched and not is_test:
        what = f"images not as annotated, passed over, of {report.looked_at:,} looked at"
        _warn(report, report.mismatched, what)
    if report.outside:
        _warn(report, report.outside, "boxes that reach outside their images, cut there")
    if report.empty:
        _warn(report, report.empty, "classes without an object")


def _warn(report: Report, found: tuple[str, ...], what: str) -> None:
    shown = ", ".join(found[:3]) + (", ..." if len(found) > 3 else "")
    log.warning("dataset %s: %s: %d (%s)", report.name, what, len(found), shown)


def _check_images(report: Report, is_test: bool) -> None:
    name, advised = report.name, advice(report.name, _source(report.name))
    if not report.images:
        raise UserError(f"dataset {name} is empty; {advised}.")
    if report.missing and (is_test or len(report.missing) >= report.images):
        raise UserError(
            f"dataset {name} lacks {len(report.missing)} files of its {report.images} images, such "
            f"as {report.missing[0]}; {advised}."
        )
    if report.mismatched and (is_test or len(report.mismatched) == report.looked_at):
        used, count = ("scored by", report.images) if is_test else ("trained on", report.looked_at)
        raise UserError(
            f"dataset {name} cannot be {used}: {len(report.mismatched):,} of {count:,} images are "
            f"not as annotated, such as {report.mismatched[0]}; mend them or {_source(name)}."
        )


def _check_test(report: Report) -> None:
    if MetadataCatalog.get(report.name).get("evaluator_type") == "pascal_voc":
        wrong = broken_annotation(report.name, scored=True)
        if wrong:
            raise UserError(f"dataset {report.name} cannot be scored by: {wrong}; mend the file.")


def _check_training(report: Report, cfg: Any) -> None:
    if report.objects == 0 and cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS:
        raise UserError(
            f"dataset {report.name} has no object to train on; annotate some in "
            f"{_source(report.name)}, or leave it out of DATASETS.TRAIN."
        )


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
        raise UserError(
            f"dataset {name} cannot be read: {told}; {advice(name, _source(name))}."
        ) from error
