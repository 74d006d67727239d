"""Datasets that are forgotten after a test, and the embedded ones in folders to be changed.

Detectron2 looks where the data sets are when it is imported: here only in fixtures.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import demo


@pytest.fixture
def registered() -> Iterator[list[str]]:
    """Names of datasets to be forgotten."""
    from detectron2.data import DatasetCatalog, MetadataCatalog

    names: list[str] = []
    yield names
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.fixture
def coco(tmp_path: Path, registered: list[str]) -> Callable[..., str]:
    """A function that makes ``val2017`` and ``val.json``, the latter changed, and names the set."""
    from detectron2.data.datasets import register_coco_instances

    from tests.detection.small_datasets import instances

    def made(**changes: Any) -> str:
        shutil.copytree(demo.default_root() / "coco" / "val2017", tmp_path / "val2017")
        (tmp_path / "val.json").write_text(json.dumps(instances() | changes))
        name = f"coco_{tmp_path.name}"
        register_coco_instances(name, {}, str(tmp_path / "val.json"), str(tmp_path / "val2017"))
        registered.append(name)
        return name

    return made


@pytest.fixture
def voc(tmp_path: Path, registered: list[str]) -> str:
    """The name of a set in ``VOC2007``."""
    from detectron2.data import MetadataCatalog
    from detectron2.data.datasets import register_pascal_voc

    shutil.copytree(demo.default_root() / "VOC2007", tmp_path / "VOC2007")
    name = f"voc_{tmp_path.name}"
    register_pascal_voc(name, str(tmp_path / "VOC2007"), "test", 2007, demo.VOC_NAMES)
    MetadataCatalog.get(name).evaluator_type = "pascal_voc"
    registered.append(name)
    return name
