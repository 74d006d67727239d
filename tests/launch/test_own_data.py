"""Data in COCO's format: rows of one's own, and what is said of a ground truth before a job."""

import contextlib
import io
import json
import re
from pathlib import Path

import pandas as pd
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import launch.transfer
from common.errors import UserError
from launch.options import parse
from tests.detection.conftest import registered
from tests.detection.test_annotations import Change, every
from tests.detection.test_coco import REFUSED, small
from tests.launch.test_bad_input import files
from tests.launch.test_end_to_end import run

__all__ = ["registered"]

CLASSES = ("chair", "person", "car")  # in no order of COCO's
SMALL = (
    "SOLVER.MAX_ITER 20 SOLVER.STEPS (15,) SOLVER.IMS_PER_BATCH 2 INPUT.MIN_SIZE_TRAIN (64,) "
    "INPUT.MIN_SIZE_TEST 64 TEST.PRECISE_BN.NUM_ITER 1 DATALOADER.NUM_WORKERS 0 "
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST 0.0"  # so little training finds nothing with certainty
)


def three_classes(real_data: Path, split: str, path: Path, first: int = 0) -> str:
    """Real images with objects of three classes, whose ids are from 0; for ``--dataset``.

    Args:
        first: the first object's id. 0 means "unmatched" inside COCO's evaluator, so that
            pycocotools' reference has to be given other ids than the product.
    """
    content = json.loads((real_data / f"coco/annotations/instances_{split}.json").read_text())
    ids = {c["id"]: CLASSES.index(c["name"]) for c in content["categories"] if c["name"] in CLASSES}
    objects = [a for a in content["annotations"] if a["category_id"] in ids]
    seen = {a["image_id"] for a in objects}
    mine = {
        "images": [image for image in content["images"] if image["id"] in seen],
        "annotations": [
            a | {"id": number, "category_id": ids[a["category_id"]]}
            for number, a in enumerate(objects, first)
        ],
        "categories": [{"id": i, "name": name} for i, name in enumerate(CLASSES)],
    }
    path.write_text(json.dumps(mine))
    return f"{path.stem}={path}:{real_data}/coco/{split}"


def reference(truth: Path, predictions: Path, task: str) -> list[float]:
    rows = json.loads(predictions.read_text())
    if task == "segm":  # pycocotools would go by the boxes' sizes, Detectron2 goes by the masks'
        rows = [{key: row[key] for key in row if key != "bbox"} for row in rows]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(truth))
        scored = COCOeval(coco, coco.loadRes(rows), task)
        scored.evaluate()
        scored.accumulate()
        scored.summarize()
    return [round(100 * float(ap), 4) for ap in scored.stats[:6]]


def test_three_classes_of_ones_own(tmp_path: Path, real_data: Path) -> None:
    """Trained, scored as pycocotools scores what was written, evaluated again; and resumed."""
    train = three_classes(real_data, "train2017", tmp_path / "street_train.json")
    test = three_classes(real_data, "val2017", tmp_path / "street_val.json")
    where = "--config demo_R_18_FPN --cluster local --gpus-per-node 0"
    command = f"{where} --weights none --dataset {train} {test} {SMALL}"
    assert "3 classes" in run(tmp_path, "transfer.py", command)
    (folder,) = (tmp_path / "runs" / "transfer").iterdir()
    assert folder.name.startswith("demo_R_18_FPN-street_train-street_val-random-")
    assert "already finished" in run(tmp_path, "transfer.py", command)
    detector = folder / "model_final.pth"
    run(
        tmp_path,
        "transfer.py",
        f"{where} --eval-only --weights {detector} --dataset {test} {SMALL}",
    )

    elsewhere = test.replace("street_val", "other_val")
    path = tmp_path / "other_val.json"
    path.write_text((tmp_path / "street_val.json").read_text().replace('"chair"', '"stool"'))
    words = f"{where} --eval-only --weights {detector} --dataset {elsewhere} {SMALL}"
    assert "such as chair, stool; evaluate on one" in run(tmp_path, "transfer.py", words, status=2)

    table = pd.read_csv(tmp_path / "results" / "transfer.csv")
    assert list(table["dataset"]) == ["street_val"] * 2 and not table["demo"].any()
    assert list(table["iterations"]) == [20, 0]
    predictions = folder / "inference" / "coco_instances_results.json"
    assert {p["category_id"] for p in json.loads(predictions.read_text())} <= {0, 1, 2}
    three_classes(real_data, "val2017", tmp_path / "reference.json", first=1)
    for task, name in (("bbox", "box"), ("segm", "mask")):
        wanted = reference(tmp_path / "reference.json", predictions, task)
        assert wanted[1] > 0
        names = [f"{name}_{ap}" for ap in ("AP", "AP50", "AP75", "APs", "APm", "APl")]
        for _, row in table[names].iterrows():
            assert list(row) == wanted


def words(demo_root: Path, folder: Path, registered: list[str], change: Change) -> list[str]:
    """A command on the embedded data, whose test set is changed."""
    content = json.loads((demo_root / "coco/annotations/instances_val2017.json").read_text())
    name, _ = small((demo_root, content, "demo_R_18_FPN"), folder, registered, change)
    start = "--config demo_R_18_FPN --weights none --cluster debug"
    return [*start.split(), "DATASETS.TEST", f"('{name}',)"]


def test_a_test_set_that_cannot_be_scored_is_refused(
    demo_root: Path, tmp_path: Path, registered: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """tests/detection/test_coco.py knows all there is to refuse."""
    change, message = REFUSED["negative boxes"]
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
