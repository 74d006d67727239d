"""The whole set on the disk: drawn once, complete or absent, in the standard layouts.

The layout under the root is the one that Detectron2 expects of ``DETECTRON2_DATASETS``::

    imagenet/{train,val}/<class>/*.jpg
    coco/{train2017,val2017}/*.jpg  coco/annotations/instances_{train,val}2017.json
    VOC2007/{JPEGImages,Annotations,ImageSets}
    VOC2012/{JPEGImages,Annotations,ImageSets,SegmentationClass,SegmentationClassAug}
    manifest.json
"""

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import write_json
from common.locks import locked
from demo import coco, scenes, voc
from demo.classes import CLASSES

VERSION = 3  # raise it with every change of what is drawn
GENERATOR = "textured shapes"  # by which a manifest is known
ENVIRONMENT = "LEWEL_DEMO_DIR"


@dataclasses.dataclass(frozen=True)
class Counts:
    """Numbers of images; of ``imagenet``, in each class."""

    imagenet_train: int = 252
    imagenet_val: int = 60
    coco_train: int = 160
    coco_val: int = 40
    voc2007_trainval: int = 60
    voc2007_test: int = 40
    voc2012_train: int = 24
    voc2012_val: int = 150
    voc2012_augmented: int = 24


FULL = Counts()


def default_root() -> Path:
    """``LEWEL_DEMO_DIR``, or else ``data/demo`` in the repository."""
    folder = os.environ.get(ENVIRONMENT)
    return Path(folder or Path(__file__).parent.parent / "data" / "demo").expanduser().resolve()


def ensure(root: Path | None = None) -> Path:
    """Draw the set unless it is there already, and return its folder's absolute path.

    Several processes may call it at once. A set that another version of the generator drew is
    replaced; one of another seed is kept.

    Raises:
        UserError: if the folder holds something else, or cannot be written.
    """
    root = default_root() if root is None else Path(root).resolve()
    return root if _is_current(root) else write(root, 0, FULL, unless_current=True)


def write(
    root: Path, seed: int = 0, counts: Counts = FULL, *, unless_current: bool = False
) -> Path:
    """Draw the set anew, as :func:`ensure`, in place of one that is there.

    It appears all at once: a process that is killed on the way leaves no set. The same seed, which
    is not negative, gives the same bytes. ``unless_current`` keeps a set of this version.
    """
    root = Path(root).resolve()
    partial, old, lock = (
        root.parent / f".{root.name}.{what}" for what in ("partial", "old", "lock")
    )
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with locked(lock):
            if unless_current and _is_current(root):  # another process drew it
                return root
            if root.exists() and not manifest(root) and any(root.iterdir()):
                raise UserError(
                    f"{root} holds something other than the embedded data set; "
                    f"set {ENVIRONMENT} to a folder of its own."
                )
            for leftover in (partial, old):  # of a process that was killed
                shutil.rmtree(leftover, ignore_errors=True)
            _draw(partial, seed, counts)
            if root.exists():
                root.rename(old)
            partial.rename(root)
            shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise UserError(
            f"cannot draw the embedded data set into {root}: {error.strerror}; "
            f"set {ENVIRONMENT} to a folder that can be written."
        ) from error
    return root


def manifest(root: Path) -> dict[str, Any]:
    """The ``manifest.json`` of the set in ``root``; empty if there is none."""
    try:
        found = json.loads((root / "manifest.json").read_text())
    except (OSError, ValueError):
        return {}
    known = isinstance(found, dict) and found.get("generator") == GENERATOR
    return found if known else {}


def _is_current(root: Path) -> bool:
    return manifest(root).get("version") == VERSION


def _draw(root: Path, seed: int, counts: Counts) -> None:
    _write_imagefolder(root / "imagenet" / "train", counts.imagenet_train, seed)
    _write_imagefolder(root / "imagenet" / "val", counts.imagenet_val, seed)
    coco.write(root / "coco", "train2017", counts.coco_train, seed)
    coco.write(root / "coco", "val2017", counts.coco_val, seed)
    voc.write_2007(root / "VOC2007", counts.voc2007_trainval, counts.voc2007_test, seed)
    voc.write_2012(
        root / "VOC2012", counts.voc2012_train, counts.voc2012_val, counts.voc2012_augmented, seed
    )
    found = {
        "generator": GENERATOR,
        "version": VERSION,
        "seed": seed,
        "classes": CLASSES,
        "counts": dataclasses.asdict(counts),
    }
    write_json(root / "manifest.json", found)


def _write_imagefolder(root: Path, count: int, seed: int) -> None:
    split = root.name
    for label, name in enumerate(CLASSES):
        for index in range(count):
            scene = scenes.single(scenes.generator(seed, "imagenet", split, name, index), label)
            scenes.save_jpeg(root / name / f"{name}_{split}_{index:04d}.jpg", scene)
