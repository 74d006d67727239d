"""Ground truth that cannot be scored is refused before any job, and what is repaired is said."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES

import launch.transfer
from common.errors import UserError
from launch.options import parse
from tests.detection.conftest import registered
from tests.detection.test_annotations import Change, every
from tests.detection.test_coco import REFUSED, small
from tests.launch.test_bad_input import DEMO_CONFIG, INFOMIN, ROOT, files

__all__ = ["registered"]


def words(demo_root: Path, folder: Path, registered: list[str], change: Change) -> list[str]:
    """A command on the embedded data, whose test set is changed."""
    content = json.loads((demo_root / "coco/annotations/instances_val2017.json").read_text())
    name, _ = small((demo_root, content, "demo_R_18_FPN"), folder, registered, change)
    start = ["--config", DEMO_CONFIG, "--weights", "none", "--cluster", "debug"]
    return [*start, "DATASETS.TEST", f"('{name}',)"]


@pytest.mark.parametrize("case", REFUSED)
def test_a_test_set_is_refused(
    demo_root: Path, tmp_path: Path, registered: list[str], monkeypatch: pytest.MonkeyPatch,
    case: str,
) -> None:  # fmt: skip
    change, message = REFUSED[case]
    command = words(demo_root, tmp_path / "data", registered, change)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(UserError, match=message):
        launch.transfer.run(command)
    assert files(tmp_path / "here") == []


def test_what_is_repaired_is_said_once(
    demo_root: Path, tmp_path: Path, registered: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    command = words(demo_root, tmp_path / "data", registered, every("id", lambda n: n))
    options, overrides = launch.transfer.split_overrides(command)
    parsed = parse(launch.transfer.Command, "launch/transfer.py", [*options, "--seeds", "2"])
    assert len(launch.transfer.plan(parsed, overrides)) == 2
    (warning,) = (w for w in capsys.readouterr().out.splitlines() if w.startswith("warning"))
    assert re.fullmatch(
        r"warning: dataset \w+: \S+/truth\.json is repaired for this run: annotations numbered "
        r"anew: \d+",
        warning,
    )


def test_it_is_a_line_on_stderr_and_status_2(demo_root: Path, tmp_path: Path) -> None:
    content: dict[str, Any] = {
        "images": [{"id": 1, "file_name": "1.jpg", "width": 30, "height": 20}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9], "area": 81,
             "iscrowd": 0, "segmentation": [[1, 1, 10, 1, 10, 10, 1, 10]]}
        ],
        "categories": [{"id": c["id"], "name": c["name"]} for c in COCO_CATEGORIES if c["isthing"]],
    }  # fmt: skip
    data = tmp_path / "datasets" / "coco"
    for split in ("train", "val"):
        (data / f"{split}2017").mkdir(parents=True)
        (data / "annotations").mkdir(exist_ok=True)
        path = data / "annotations" / f"instances_{split}2017.json"
        path.write_text(json.dumps(content))
        content["annotations"][0]["bbox"] = [9, 9, -3, 3]
    (tmp_path / "here").mkdir()
    done = subprocess.run(
        [sys.executable, str(ROOT / "launch" / "transfer.py"), "--config", INFOMIN, "--weights",
         "none", "--cluster", "local"],
        env={**os.environ, "DETECTRON2_DATASETS": str(tmp_path / "datasets")},
        cwd=tmp_path / "here", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2 and done.stderr == (
        "error: dataset coco_2017_val cannot be scored by: 1 of its images and annotations cannot "
        "be used, such as annotation 1 of 1.jpg: a box of width -3 and height 3; mend "
        f"{path}.\n"
    )
    assert files(tmp_path / "here") == []
