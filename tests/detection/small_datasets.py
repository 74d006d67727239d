"""The embedded COCO and VOC sets in folders of their own, to be changed."""

import json
import shutil
from pathlib import Path
from typing import Any

from detectron2.data import MetadataCatalog
from detectron2.data.datasets import register_coco_instances, register_pascal_voc

import demo
from tests.detection.helpers import config


def coco(root: Path, folder: Path, registered: list[str], **changes: Any) -> str:
    """The embedded COCO val set in a folder, with some of its JSON replaced."""
    shutil.copytree(root / "coco" / "val2017", folder / "val2017")
    content = instances(root)
    (folder / "val.json").write_text(json.dumps(content | changes))
    name = f"coco_{folder.parent.name}_{folder.name}"
    register_coco_instances(name, {}, str(folder / "val.json"), str(folder / "val2017"))
    registered.append(name)
    return name


def instances(root: Path) -> dict[str, Any]:
    """The embedded COCO val set's JSON."""
    path = root / "coco" / "annotations" / "instances_val2017.json"
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def replaced(annotation: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """An annotation with other values; without those that are None."""
    return {k: v for k, v in (annotation | change).items() if v is not None}


def voc(root: Path, folder: Path, registered: list[str]) -> str:
    """The embedded VOC2007 in a folder."""
    shutil.copytree(root / "VOC2007", folder / "VOC2007")
    name = f"voc_{folder.name}"
    register_pascal_voc(name, str(folder / "VOC2007"), "test", 2007, demo.VOC_NAMES)
    MetadataCatalog.get(name).evaluator_type = "pascal_voc"
    registered.append(name)
    return name


def cfg_of(train: str, test: str = "demo_voc_2007_test") -> Any:
    return config("demo_voc_R_18_FPN", "DATASETS.TRAIN", (train,), "DATASETS.TEST", (test,))


def cut(path: Path) -> None:
    """What a copy that was broken off leaves of a text file."""
    path.write_text(path.read_text()[:200])
