"""COCO files of a config's datasets: judged once for each file, and repaired for a job."""

import codecs
import contextlib
import functools
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
from common.files import atomic_write, sha256
from detection.annotations import SHOWN, NotCOCOError, Verdict, judge
from detection.datasets import advice, nothing_to_train_on, require_files

log = logging.getLogger("detection")

LAYOUT = 4  # of verdicts in the cache; another number has the files read again


def require_usable(cfg: Any) -> list[str]:
    """Raise a UserError unless a config's datasets can be used, as far as lists and JSON show.

    Returns:
        What was repaired in COCO files or left out of them, a sentence for each.
    """
    require_files(cfg)
    sentences: list[str] = []
    classes: dict[str, list[str]] = {}
    for name, file in coco_files(cfg).items():
        found = verdict_of(cfg, name, file)
        _check(cfg, name, file, found)
        classes[name] = found.classes
        if found.repairs:
            repairs = ", ".join(found.repairs)
            sentences.append(f"dataset {name}: {file} is repaired for this run: {repairs}")
        if found.unusable:
            sentences.append(
                f"dataset {name}: images and annotations of {file} that cannot be trained on, left "
                f"out: {found.unusable:,} ({some(found.examples, found.unusable)})"
            )
    for one, other in itertools.pairwise(classes):
        if classes[one] != classes[other]:
            raise UserError(
                f"dataset {one} has the classes {some(classes[one])}, and {other} "
                f"{some(classes[other])}; give their files the same categories, in one order."
            )
    return sentences


def verdict(name: str, file: Path, *, scored: bool, masks: bool) -> Verdict:
    """The verdict on a COCO file, as of :func:`detection.annotations.judge`.

    A file is read once, which takes seconds (COCO's train2017: about 20), and then taken for the
    same while its size and time are.
    """
    try:
        facts = [LAYOUT, *file_facts(file), scored, masks]
        first = functools.partial(_judged, name, file, scored, masks)
        return cached("annotations", facts, lambda: first()[0], lambda it: Verdict(*it))
    except OSError as error:
        raise UserError(f"dataset {name}: {file} cannot be read: {error.strerror}.") from error


def verdict_of(cfg: Any, name: str, file: Path) -> Verdict:
    """The verdict on the file of a config's dataset, for what the config does with it."""
    return verdict(name, file, **_uses(cfg, name))


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
    """Write repaired COCO files of a config to the folder; their paths by dataset."""
    written = {}
    for name, file in coco_files(cfg).items():
        uses = _uses(cfg, name)
        if verdict(name, file, **uses).changed:
            _, content = _judged(name, file, **uses)
            written[name] = folder / f"{name}.json"
            with atomic_write(written[name], "w") as stream:
                json.dump(content, stream, default=list)
    return written


@contextlib.contextmanager
def in_place(files: dict[str, Path]) -> Iterator[None]:
    """Let Detectron2 read datasets from other files, given by name, for the block."""
    kept = {name: (DatasetCatalog.pop(name), MetadataCatalog.pop(name)) for name in files}
    for name, (_, metadata) in kept.items():
        classes = metadata.get("thing_classes")
        known = {"thing_classes": classes} if classes else {}
        register_coco_instances(name, known, str(files[name]), metadata.image_root)
    try:
        yield
    finally:
        for name, (loader, metadata) in kept.items():
            DatasetCatalog.pop(name)
            DatasetCatalog.register(name, loader)
            MetadataCatalog[name] = metadata


def _check(cfg: Any, name: str, file: Path, found: Verdict) -> None:
    """Raise for what keeps a dataset from being used."""
    registered = MetadataCatalog.get(name).get("thing_classes")
    if registered and list(registered) != found.classes:
        raise UserError(
            f"dataset {name} has the classes {some(registered)}, but {file} "
            f"{some(found.classes)}; is it another dataset's?"
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
        raise nothing_to_train_on(name, file)
    if found.run_lengths and cfg.MODEL.MASK_ON and cfg.INPUT.MASK_FORMAT == "polygon":
        raise UserError(
            f"INPUT.MASK_FORMAT is polygon, but dataset {name} has masks in run lengths, such as "
            f"of {found.run_lengths}; set it to bitmask."
        )


def some(names: Sequence[str], count: int = 0) -> str:
    """The first of several names, of which there may be more than are given."""
    return ", ".join(names[:SHOWN]) + (", ..." if (count or len(names)) > SHOWN else "")


def _uses(cfg: Any, name: str) -> dict[str, bool]:
    return {"scored": name in cfg.DATASETS.TEST, "masks": bool(cfg.MODEL.MASK_ON)}


def _judged(name: str, file: Path, scored: bool, masks: bool) -> tuple[Verdict, Any]:
    log.info("dataset %s: looking through %s, once", name, file)
    with file.open("rb") as stream:
        marked = stream.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8
    try:
        with file.open(encoding="utf-8-sig") as text:
            content = json.load(text, object_hook=_compact)
        found, content = judge(content, scored=scored, masks=masks)
    except NotCOCOError as error:
        raise UserError(
            f"dataset {name}: {file} is no ground truth in COCO's format: {error}; mend it."
        ) from error
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"dataset {name} cannot be read: {file}: {' '.join(str(error).split())}; "
            f"{advice(name, file)}."
        ) from error
    if marked:
        repairs = [*found.repairs, "the mark of its encoding, left out"]
        found = found._replace(changed=True, repairs=repairs)
    if scored and not found.changed:
        try:
            COCO(str(file))
        except ValueError:  # it is strict about what it has no use for, such as info and licenses
            repairs = [*found.repairs, "fields that the evaluator has no use for, left out"]
            found = found._replace(changed=True, repairs=repairs)
    return found._replace(sha256=sha256(file)), content


def _compact(item: dict[str, Any]) -> dict[str, Any]:
    """Polygons in a quarter of the memory; those that are no numbers as they are."""
    polygons = item.get("segmentation")
    if isinstance(polygons, list):
        with contextlib.suppress(TypeError, OverflowError):
            item["segmentation"] = [array("d", polygon) for polygon in polygons]
    return item
