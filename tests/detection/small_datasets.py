"""Ground truth of the embedded COCO set, to be changed, and configs of small data sets."""

import json
from pathlib import Path
from typing import Any

import demo
from tests.detection.helpers import config


def instances() -> dict[str, Any]:
    """The content of the embedded COCO val set's JSON."""
    path = demo.default_root() / "coco" / "annotations" / "instances_val2017.json"
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def replaced(annotation: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """An annotation with other values; without those that are None."""
    return {k: v for k, v in (annotation | change).items() if v is not None}


def cfg_of(train: str, test: str = "demo_voc_2007_test") -> Any:
    """A config of boxes."""
    return config("demo_voc_R_18_FPN", "DATASETS.TRAIN", (train,), "DATASETS.TEST", (test,))


def cut(path: Path) -> None:
    """Cut a text file short."""
    path.write_text(path.read_text()[:200])
