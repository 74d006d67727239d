"""The benchmarks run; what they find takes minutes."""

from pathlib import Path
from typing import Literal

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from benchmarks.overfit import TASKS, Options, overfit
from common.errors import UserError


@pytest.mark.parametrize(
    ("task", "config"),
    [
        ("segmentation", "demo_voc_R_18_FCN"),
        ("detection", None),
    ],
)
def test_overfit(
    demo_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    task: Literal["segmentation", "detection"],
    config: str | None,
) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(demo_root))
    options = Options(task, images=2, size=49, iterations=4, config=config)
    try:
        score, loss = overfit(options, tmp_path)
        records = DatasetCatalog.get(TASKS[task].dataset)
    finally:
        DatasetCatalog.remove(TASKS[task].dataset)
        MetadataCatalog.remove(TASKS[task].dataset)
    assert 0 <= score <= 100 and 0 < loss < 10
    assert len(records) == 2 and all(Path(r["file_name"]).is_relative_to(tmp_path) for r in records)


def test_missing_images_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    with pytest.raises(UserError, match=r"Segmentation/train\.txt.*; set DETECTRON2_DATASETS"):
        overfit(Options("segmentation"), tmp_path)
