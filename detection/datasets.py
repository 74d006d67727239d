"""Registration of the embedded data, and a first look at the files of a config's datasets."""

import os
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances, register_pascal_voc

import demo
from common.errors import UserError

OFFICIAL = frozenset(DatasetCatalog.list())  # Detectron2's own; the embedded ones come next
DEMO_PREFIX = "demo_"
DEMO_ROOT = demo.default_root()

for _split in ("train", "val"):
    register_coco_instances(
        f"{DEMO_PREFIX}coco_{_split}",
        {"thing_classes": list(demo.CLASSES)},
        str(DEMO_ROOT / "coco" / "annotations" / f"instances_{_split}2017.json"),
        str(DEMO_ROOT / "coco" / f"{_split}2017"),
    )
for _split in ("trainval", "test"):
    _name = f"{DEMO_PREFIX}voc_2007_{_split}"
    register_pascal_voc(_name, str(DEMO_ROOT / "VOC2007"), _split, 2007, demo.VOC_NAMES)
    MetadataCatalog.get(_name).evaluator_type = "pascal_voc"


def uses_demo(cfg: Any) -> bool:
    """True if a Detectron2 config trains or tests on the embedded data."""
    return any(name.startswith(DEMO_PREFIX) for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST))


def require_files(cfg: Any) -> None:
    """Raise a UserError unless every dataset of a config is on the disk; draw the embedded one.

    Folders and lists are looked at, in no time.
    """
    if uses_demo(cfg):
        demo.ensure()
    for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        if name not in DatasetCatalog.list():
            raise UserError(
                f"DATASETS: {name} is not a dataset that Detectron2 knows; check its spelling."
            )
        for wanted in _files(name):
            if not wanted.exists():
                root = os.environ.get(
                    "DETECTRON2_DATASETS", "datasets (DETECTRON2_DATASETS is not set)"
                )
                raise UserError(
                    f"dataset {name} is not there: looked for {wanted}, under {root}; "
                    "set DETECTRON2_DATASETS to the folder that holds it."
                )
        _check_list(name)
        _check_classes(cfg, name)


def advice(name: str, file: object) -> str:
    """Advice about a broken file of a dataset."""
    official = name in OFFICIAL or name.endswith("_sem_seg")  # VOC 2012's masks
    return "unpack it again" if official else f"mend {file}"


def nothing_to_train_on(name: str, file: object) -> UserError:
    """The error of a training set without an object."""
    return UserError(
        f"dataset {name} has no object to train on; annotate some in {file}, or leave it out of "
        "DATASETS.TRAIN."
    )


def image_list(name: str) -> Path | None:
    """The text file that lists a VOC dataset's images; None for datasets of another kind."""
    metadata = MetadataCatalog.get(name)
    if metadata.get("image_list"):
        return Path(metadata.image_list)
    if metadata.get("dirname") and metadata.get("split"):
        return Path(metadata.dirname) / "ImageSets" / "Main" / f"{metadata.split}.txt"
    return None


def _files(name: str) -> list[Path]:
    """Files and folders that must exist, the likeliest to be missing first."""
    metadata = MetadataCatalog.get(name)
    keys = ("json_file", "image_root", "dirname", "sem_seg_root")
    found = [Path(metadata.get(key)) for key in keys if metadata.get(key)]
    listed = image_list(name)
    return [*found, listed] if listed else found


def _check_list(name: str) -> None:
    """Raise unless a VOC list names images, of which the first or the last is there."""
    path = image_list(name)
    if path is None:
        return
    names = path.read_text().split()
    if not names:
        raise UserError(f"dataset {name} is empty: {path} lists no image.")
    folder = path.parents[2] / "JPEGImages"
    first, last = (folder / f"{one}.jpg" for one in (names[0], names[-1]))
    if not first.exists() and not last.exists():
        raise UserError(
            f"dataset {name} is not whole: {path} lists {len(names)} images, but neither {first} "
            f"nor {last.name} is there; {advice(name, path)}."
        )


def _check_classes(cfg: Any, name: str) -> None:
    """Raise if a model has another number of classes than its dataset."""
    metadata = MetadataCatalog.get(name)
    things, stuff = metadata.get("thing_classes"), metadata.get("stuff_classes")
    for key, node, classes in (
        ("MODEL.ROI_HEADS.NUM_CLASSES", cfg.MODEL.ROI_HEADS, things),
        ("MODEL.SEM_SEG_HEAD.NUM_CLASSES", cfg.MODEL.SEM_SEG_HEAD, None if things else stuff),
    ):
        if classes and len(classes) != node.NUM_CLASSES:
            raise UserError(
                f"{key} is {node.NUM_CLASSES}, but dataset {name} has {len(classes)} classes; "
                f"set it to {len(classes)}."
            )
