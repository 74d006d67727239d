"""The embedded data's registration, and whether a config's datasets are there."""

import os
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances

import demo
from common.errors import UserError

DEMO_PREFIX = "demo_"

for _split in ("train", "val"):
    _root = demo.default_root() / "coco"
    register_coco_instances(
        f"{DEMO_PREFIX}coco_{_split}",
        {},
        str(_root / "annotations" / f"instances_{_split}2017.json"),
        str(_root / f"{_split}2017"),
    )


def uses_demo(cfg: Any) -> bool:
    """Whether a Detectron2 config trains or tests on the embedded data."""
    return any(name.startswith(DEMO_PREFIX) for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST))


def require_datasets(cfg: Any) -> None:
    """Raise unless every dataset of a Detectron2 config is on the disk; draw the embedded one.

    Raises:
        UserError: naming the dataset and the file that was looked for.
    """
    if uses_demo(cfg):
        demo.ensure()
    for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        if name not in DatasetCatalog.list():
            raise UserError(
                f"DATASETS: {name} is not a dataset that Detectron2 knows; check its spelling."
            )
        metadata = MetadataCatalog.get(name)
        for wanted in (
            metadata.get("json_file"),
            metadata.get("image_root"),
            metadata.get("dirname"),
        ):
            if wanted and not Path(wanted).exists():
                root = os.environ.get(
                    "DETECTRON2_DATASETS", "datasets (DETECTRON2_DATASETS is not set)"
                )
                raise UserError(
                    f"dataset {name} is not there: looked for {wanted}, under {root}; "
                    "set DETECTRON2_DATASETS to the folder that holds it."
                )
