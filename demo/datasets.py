"""The whole set on the disk: drawn once, complete or absent, in the standard layouts.

The layout under the root is the one that Detectron2 expects of ``DETECTRON2_DATASETS``::

    imagenet/{train,val}/<class>/*.jpg
    coco/{train2017,val2017}/*.jpg  coco/annotations/instances_{train,val}2017.json
    VOC2007/{JPEGImages,Annotations,ImageSets}
    VOC2012/{JPEGImages,Annotations,ImageSets,SegmentationClass,SegmentationClassAug}
    manifest.json
"""

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.locks import locked
from demo import coco, scenes, voc
from demo.classes import CLASSES

VERSION = 3  # raise it with every change of what is drawn
MANIFEST = "manifest.json"
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
    """Draw the set unless it is there already; safe to call from several processes at once.

    A set that another version of the generator drew is replaced; one of another seed is kept.

    Args:
        root: the set's own folder; ``default_root()`` if None.

    Returns:
        The absolute path of the folder.

    Raises:
        UserError: if the folder holds something else, or cannot be written.
    """
    root = default_root() if root is None else Path(root).expanduser().resolve()
    if not _is_current(root):
        with _locked(root):
            if not _is_current(root):
                _replace(root, 0, FULL)
    return root


def write(root: Path, seed: int = 0, counts: Counts = FULL) -> Path:
    """Draw the set anew, as :func:`ensure`, in place of one that is there.

    It appears all at once: a process that is killed on the way leaves no set. The same seed, which
    is not negative, gives the same bytes.
    """
    root = Path(root).expanduser().resolve()
    with _locked(root):
        _replace(root, seed, counts)
    return root


def manifest(root: Path) -> dict[str, Any] | None:
    """The ``manifest.json`` of the set in ``root``; None if there is none."""
    try:
        found = json.loads((root / MANIFEST).read_text())
    except (OSError, ValueError):
        return None
    known = isinstance(found, dict) and found.get("generator") == GENERATOR
    return found if known else None


def _is_current(root: Path) -> bool:
    return (manifest(root) or {}).get("version") == VERSION


@contextlib.contextmanager
def _locked(root: Path) -> Iterator[None]:
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with locked(root.parent / f".{root.name}.lock"):
            empty = not root.exists() or (root.is_dir() and not any(root.iterdir()))
            if manifest(root) is None and not empty:
                raise UserError(
                    f"{root} holds something other than the embedded data set; "
                    f"set {ENVIRONMENT} to a folder of its own."
                )
            yield
    except OSError as error:
        raise UserError(
            f"cannot draw the embedded data set into {root}: {error.strerror}; "
            f"set {ENVIRONMENT} to a folder that can be written."
        ) from error


def _replace(root: Path, seed: int, counts: Counts) -> None:
    partial, old = (root.parent / f".{root.name}.{what}" for what in ("partial", "old"))
    for leftover in (partial, old):  # of a process that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    _draw(partial, seed, counts)
    if root.exists():
        root.rename(old)
    partial.rename(root)
    shutil.rmtree(old, ignore_errors=True)


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
    (root / MANIFEST).write_text(json.dumps(found, indent=2) + "\n")


def _write_imagefolder(root: Path, count: int, seed: int) -> None:
    split = root.name
    for label, name in enumerate(CLASSES):
        for index in range(count):
            scene = scenes.single(scenes.generator(seed, "imagenet", split, name, index), label)
            scenes.save_jpeg(root / name / f"{name}_{split}_{index:04d}.jpg", scene)
