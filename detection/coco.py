"""COCO files of a config's datasets: judged, once for each file, and repaired for a job."""

import codecs
import contextlib
import itertools
import json
import logging
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from hotcoco import COCO

from common.cache import cached, file_facts
from common.errors import UserError
from common.files import atomic_write
from detection.annotations import SHOWN, Verdict, judge

log = logging.getLogger("detection")

LAYOUT = 2  # of what is judged, and how; another number has the files read again
OFFICIAL = frozenset(DatasetCatalog.list())  # Detectron2's own; ours are registered later


def require_usable(cfg: Any) -> list[str]:
    """What was repaired or left out of a config's COCO datasets, a sentence for each.

    A file is read once, which takes seconds (COCO's train2017: about 20), and then taken for the
    same while its size and time are.

    Raises:
        UserError: naming a dataset, its file, and what keeps it from being trained on or scored by.
    """
    sentences: list[str] = []
    classes: dict[str, list[str]] = {}
    for name, file in coco_files(cfg).items():
        verdict = _verdict(cfg, name, file)
        _check(cfg, name, file, verdict)
        classes[name] = list(verdict.classes)
        if verdict.repairs:
            repairs = ", ".join(verdict.repairs)
            sentences.append(f"dataset {name}: {file} is repaired for this run: {repairs}")
        if verdict.unusable:
            sentences.append(
                f"dataset {name}: images and annotations of {file} that cannot be trained on, left "
                f"out: {verdict.unusable:,} ({_some(verdict.examples, verdict.unusable)})"
            )
    for one, other in itertools.pairwise(classes):
        if classes[one] != classes[other]:
            raise UserError(
                f"dataset {one} has the classes {_some(classes[one])}, and {other} "
                f"{_some(classes[other])}; give their files the same categories, in one order."
            )
    return sentences


def coco_files(cfg: Any) -> dict[str, Path]:
    """The JSON files of a config's datasets that ``register_coco_instances`` knows, by name."""
    names = dict.fromkeys((*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST))
    known = register_coco_instances.__name__
    return {
        name: Path(MetadataCatalog.get(name).json_file).absolute()
        for name in names
        if getattr(DatasetCatalog[name], "__qualname__", "").startswith(f"{known}.")
    }


def write_repaired(cfg: Any, folder: Path) -> dict[str, Path]:
    """Write what is to be used in the place of a config's COCO files, where they would not do.

    Returns:
        The files that were written to the folder, by the names of their datasets.
    """
    written = {}
    for name, file in coco_files(cfg).items():
        if _verdict(cfg, name, file).changed:
            _, content = _judged(cfg, name, file)
            written[name] = folder / f"{name}.json"
            with atomic_write(written[name], "w") as stream:
                json.dump(content, stream, default=list)
    return written


@contextlib.contextmanager
def in_place(name: str, file: Path) -> Iterator[None]:
    """Let Detectron2 read a dataset from another file for the block."""
    loader, metadata = DatasetCatalog.pop(name), MetadataCatalog.pop(name)
    classes = metadata.get("thing_classes")
    kept = {"thing_classes": classes} if classes else {}
    register_coco_instances(name, kept, str(file), metadata.image_root)
    try:
        yield
    finally:
        DatasetCatalog.pop(name)
        DatasetCatalog.register(name, loader)
        MetadataCatalog[name] = metadata


def advice(name: str, file: object) -> str:
    """What to do about a file of a dataset."""
    official = name in OFFICIAL or name.endswith("_sem_seg")  # VOC 2012's masks
    return "unpack it again" if official else f"mend {file}"


def _check(cfg: Any, name: str, file: Path, found: Verdict) -> None:
    """Raise for what keeps a dataset from being used."""
    if found.refusal:
        raise UserError(
            f"dataset {name}: {file} is no ground truth in COCO's format: {found.refusal}; mend it."
        )
    registered = MetadataCatalog.get(name).get("thing_classes")
    if registered and list(registered) != list(found.classes):
        raise UserError(
            f"dataset {name} has the classes {_some(registered)}, but {file} "
            f"{_some(found.classes)}; is it another dataset's?"
        )
    broken = f"{found.unusable:,} of its images and annotations cannot be used, such as "
    broken += ", ".join(found.examples[:1])
    if name in cfg.DATASETS.TEST:
        if found.unusable:
            raise UserError(f"dataset {name} cannot be scored by: {broken}; mend {file}.")
        if not found.objects:
            raise UserError(
                f"dataset {name} cannot be scored by: {file} has no object, or crowds alone; name "
                "another in DATASETS.TEST."
            )
    if name not in cfg.DATASETS.TRAIN:
        return
    if not found.objects and cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS:
        if found.unusable:
            raise UserError(f"dataset {name} cannot be trained on: {broken}; mend {file}.")
        raise UserError(
            f"dataset {name} has no object to train on; annotate some in {file}, or leave it out "
            "of DATASETS.TRAIN."
        )
    if found.run_lengths and cfg.MODEL.MASK_ON and cfg.INPUT.MASK_FORMAT == "polygon":
        raise UserError(
            f"INPUT.MASK_FORMAT is polygon, but dataset {name} has masks in run lengths, such as "
            f"of {found.run_lengths}; set it to bitmask."
        )


def _some(names: Sequence[str], count: int = 0) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if (count or len(names)) > SHOWN else "")


def _verdict(cfg: Any, name: str, file: Path) -> Verdict:
    try:
        facts = [LAYOUT, *file_facts(file), *_uses(cfg, name).values()]
    except OSError as error:
        raise UserError(f"dataset {name}: {file} cannot be read: {error.strerror}.") from error
    return cached(
        "annotations", facts, lambda: _judged(cfg, name, file)[0], lambda it: Verdict(*it)
    )


def _uses(cfg: Any, name: str) -> dict[str, bool]:
    return {"scored": name in cfg.DATASETS.TEST, "masks": bool(cfg.MODEL.MASK_ON)}


def _judged(cfg: Any, name: str, file: Path) -> tuple[Verdict, Any]:
    uses = _uses(cfg, name)
    log.info("dataset %s: looking through %s, once", name, file)
    try:
        with file.open("rb") as stream:
            marked = stream.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8
        with file.open(encoding="utf-8-sig") as text:
            content = json.load(text, object_hook=_compact)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"dataset {name} cannot be read: {file}: {' '.join(str(error).split())}; "
            f"{advice(name, file)}."
        ) from error
    verdict, content = judge(content, **uses)
    if marked and not verdict.refusal:
        repairs = [*verdict.repairs, "the mark of its encoding, left out"]
        verdict = verdict._replace(changed=True, repairs=repairs)
    if uses["scored"] and not verdict.changed and not verdict.refusal:
        try:
            COCO(str(file))
        except ValueError:  # it is strict about what it has no use for, such as info and licenses
            repairs = [*verdict.repairs, "fields that the evaluator has no use for, left out"]
            verdict = verdict._replace(changed=True, repairs=repairs)
    return verdict, content


def _compact(item: dict[str, Any]) -> dict[str, Any]:
    """Polygons in a quarter of the memory; those that are no numbers as they are."""
    polygons = item.get("segmentation")
    if isinstance(polygons, list):
        with contextlib.suppress(TypeError, OverflowError):
            item["segmentation"] = [array("d", polygon) for polygon in polygons]
    return item
