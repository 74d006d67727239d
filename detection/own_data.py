"""Data sets of one's own, in COCO's format, as ``--dataset`` of a transfer names them.

``NAME=ANNOTATIONS.json:IMAGES``, or a name alone that a file defines once for all commands,
``~/.config/lewel-transfer/datasets.toml`` or what the variable ``LEWEL_DATASETS`` names:

    [cells_train]
    annotations = "cells/train.json"    # relative to the folder of this file
    images = "cells/train"
"""

import itertools
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances

from common.errors import UserError
from common.files import read_toml, settings_file, sha256
from detection.coco import verdict
from detection.datasets import DEMO_PREFIX

VARIABLE = "LEWEL_DATASETS"
NAME = re.compile(rf"(?!{DEMO_PREFIX})\w[\w-]{{0,63}}", re.ASCII)
FORMAT = "NAME=ANNOTATIONS.json:IMAGES"
# Keys of a Detectron2 config that such data sets decide.
KEYS = (
    *("DATASETS.TRAIN", "DATASETS.TEST"),
    *("MODEL.ROI_HEADS.NUM_CLASSES", "MODEL.RETINANET.NUM_CLASSES"),
)


@dataclass(frozen=True)
class OwnDataset:
    """A data set in COCO's format."""

    name: str  # in Detectron2, run folders and results tables
    annotations: str  # absolute path of the JSON file
    images: str  # absolute path of the folder
    sha256: str  # of the JSON file, when the command read it
    categories: tuple[tuple[int, str], ...]  # id and name, in the order of a model's classes

    def __str__(self) -> str:
        return f"{self.name} {self.sha256[:8]}"

    def register(self) -> None:
        """Register it with Detectron2 in this process, once."""
        if self.name not in DatasetCatalog.list():
            metadata = {"thing_classes": [name for _, name in self.categories]}
            register_coco_instances(self.name, metadata, self.annotations, self.images)
        known = MetadataCatalog.get(self.name)
        if (known.get("json_file"), known.get("image_root")) != (self.annotations, self.images):
            raise UserError(
                f"--dataset {self.name}: another data set has this name; choose another one."
            )

    def require_unchanged(self) -> None:
        """Raise a UserError unless its files are there, with the annotations that were read."""
        for path in (self.annotations, self.images):
            if not os.path.exists(path):
                raise UserError(f"dataset {self.name} is not there: looked for {path}.")
        if sha256(self.annotations) != self.sha256:
            raise UserError(
                f"dataset {self.name} is not what it was: {self.annotations} was changed after the "
                "run's command had read it; type the command again, which makes another run of it."
            )


def use(cfg: Any, datasets: Sequence[OwnDataset], config: str) -> None:
    """Register data sets; test a detector on the last of them, and train on those before it.

    Its number of classes is set, too. ``config`` is the YAML's name.
    """
    for name in cfg.DATASETS.TEST:
        if str(MetadataCatalog.get(name).get("evaluator_type")).endswith("_seg"):
            raise UserError(
                f"--dataset is of objects, and {config} labels pixels ({name}); choose a detector."
            )
    for dataset in datasets:
        dataset.register()
    cfg.DATASETS.TRAIN = tuple(dataset.name for dataset in datasets[:-1])
    cfg.DATASETS.TEST = (datasets[-1].name,)
    for node in (cfg.MODEL.ROI_HEADS, cfg.MODEL.RETINANET):
        node.NUM_CLASSES = len(datasets[-1].categories)


def find(words: Sequence[str], eval_only: bool = False) -> tuple[OwnDataset, ...]:
    """The data sets that ``--dataset`` names: one to train on and one to test on, or none.

    With ``eval_only`` there is but one, to test on.

    Raises:
        UserError: if there are more or fewer, one cannot be read, or their categories differ.
    """
    if words and len(words) != (1 if eval_only else 2):
        wanted = "one, to test on" if eval_only else "two, one to train on and one to test on"
        raise UserError(f"--dataset names {len(words)} data sets; give {wanted}.")
    found = tuple(_find(word, scored=number == len(words)) for number, word in enumerate(words, 1))
    for one, other in itertools.pairwise(found):
        if one.name == other.name and one != other:
            raise UserError(f"--dataset gives two data sets the name {one.name}; give one another.")
        differing = sorted({*one.categories} ^ {*other.categories})
        if differing:
            number, name = differing[0]
            has = one.name if differing[0] in one.categories else other.name
            raise UserError(
                f"--dataset {one.name} and {other.name} differ in their categories, "
                f"such as {number} {name!r}, which only {has} has; give both the same "
                "ids and names."
            )
    return found


def file() -> Path:
    """The file that defines data sets for all commands, if there is one."""
    named = os.environ.get(VARIABLE)
    return Path(named).expanduser() if named else settings_file("datasets.toml")


def _find(word: str, scored: bool) -> OwnDataset:
    name, inline, paths = word.partition("=")
    annotations, _, images = paths.rpartition(":")
    folder = Path()
    if not inline:
        annotations, images = _defined(name)
        folder = file().parent
    if not (annotations and images):
        raise UserError(f"--dataset {word}: is not {FORMAT}.")
    if not NAME.fullmatch(name):
        raise UserError(
            f"--dataset {word}: {name!r} cannot be a data set's name; it has letters, digits, _ "
            f"and -, at most 64, and does not begin with {DEMO_PREFIX}."
        )
    path = os.path.abspath(folder / Path(annotations).expanduser())
    images = os.path.abspath(folder / Path(images).expanduser())
    if not os.path.isdir(images):
        raise UserError(f"--dataset {name}: {images} is no folder; give that of its images.")
    # Masks are what most configs ask for; for another the file is looked through once more.
    found = verdict(name, Path(path), scored=scored, masks=True)
    return OwnDataset(name, path, images, found.sha256, tuple((i, c) for i, c in found.categories))


def _defined(name: str) -> tuple[str, str]:
    table = read_toml(file())
    if name not in table:
        raise UserError(
            f"--dataset {name}: is neither {FORMAT} nor defined in {file()}, which knows "
            f"{', '.join(table) or 'none'}; Detectron2's own go into DATASETS.TRAIN and TEST."
        )
    entry, wanted = table[name], {"annotations": str, "images": str}
    if not isinstance(entry, dict) or {k: type(v) for k, v in entry.items()} != wanted:
        raise UserError(
            f"{file()}: {name}: must be a table of annotations and images, both text in quotes."
        )
    return entry["annotations"], entry["images"]
