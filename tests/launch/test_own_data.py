"""Rows of one's own data, in COCO's format, and what ``--dataset`` refuses before a job."""

import contextlib
import io
import json
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import launch.transfer
from common.errors import UserError
from detection.own_data import VARIABLE
from tests.launch.test_bad_input import complete, files
from tests.launch.test_end_to_end import run

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


GOOD = {
    "images": [{"id": 1, "file_name": "1.jpg", "width": 9, "height": 9}],
    "annotations": [],
    "categories": [{"id": 0, "name": "cell"}, {"id": 2, "name": "rod"}],
}
DEMO = "--config demo_R_18_FPN --weights none --dataset"
TWO = "a=good.json:images b=good.json:images"
REFUSED: list[tuple[str, str]] = [
    (f"{DEMO} a=good.json:images", r"--dataset names 1 data sets; give two, one to train on and"),
    (f"{DEMO} {TWO} c=good.json:images", r"--dataset names 3 data sets; give two"),
    (f"{DEMO} {TWO} --eval-only", r"--dataset names 2 data sets; give one, to test on"),
    (f"{DEMO}", r"--dataset has no value"),
    (f"{DEMO} a=good.json b=good.json", r"--dataset a=good\.json: is not NAME=ANNOTATIONS\.json:"),
    (f"{DEMO} =good.json:images b=x", r"'' cannot be a data set's name"),
    (f"{DEMO} a/b=good.json:images b=x", r"'a/b' cannot be a data set's name; it has letters"),
    (f"{DEMO} demo_a=good.json:images b=x", r"'demo_a' cannot be .*does not begin with demo_"),
    (f"{DEMO} a=gone.json:images b=x", r"a: \S*/gone\.json cannot be read: No such file"),
    (f"{DEMO} a=images:images b=x", r"a: \S*/images cannot be read: Is a directory"),
    (f"{DEMO} a=good.json:gone b=x", r"a: \S*/gone is no folder; give that of its images"),
    (
        f"{DEMO} a=cut.json:images b=x",
        r"dataset a cannot be read: \S*/cut\.json: Expecting .*; mend \S*/cut\.json\.$",
    ),
    (
        f"{DEMO} a=list.json:images b=x",
        r"list\.json is no ground truth in COCO's format: it is no JSON object; mend it",
    ),
    (
        f"{DEMO} a=twice.json:images b=x",
        r"twice\.json is no ground truth in COCO's format: .* an id of its own",
    ),
    (f"{DEMO} a=good.json:images a=same.json:images", r"gives two data sets the name a; give one"),
    (
        f"{DEMO} a=good.json:images b=other.json:images",
        r"a and b differ in their categories, such as 0 'Cell', which only b has; give both",
    ),
    (
        f"{DEMO} coco_2017_val=good.json:images b=good.json:images",
        r"--dataset coco_2017_val: another data set has this name; choose another",
    ),
    (
        f"{DEMO} coco_2017_train coco_2017_val",
        r"coco_2017_train: is neither NAME=\S* nor defined in \S*/sets\.toml, which knows x, y, z; "
        r"Detectron2's own go into DATASETS\.TRAIN and TEST",
    ),
    (f"{DEMO} x x", r"sets\.toml: x: must be a table of annotations and images, both text"),
    (f"{DEMO} y y", r"sets\.toml: y: must be a table"),
    (f"{DEMO} z z", r"sets\.toml: z: must be a table"),
    (f"{DEMO} {TWO} DATASETS.TEST ('x',)", r"DATASETS\.TEST and --dataset are the same; give one"),
    (f"{DEMO} {TWO} DATASETS.TRAIN ('x',)", r"DATASETS\.TRAIN and --dataset are the same"),
    (
        f"{DEMO} {TWO} MODEL.ROI_HEADS.NUM_CLASSES 3",
        r"MODEL\.ROI_HEADS\.NUM_CLASSES and --dataset are the same",
    ),
    (
        f"{DEMO.replace('R_18_FPN', 'voc_R_18_FCN')} {TWO}",
        r"--dataset is of objects, and demo_voc_R_18_FCN labels pixels \(demo_voc_2012_val_sem_seg",
    ),
]


@pytest.mark.parametrize(("words", "message"), REFUSED)
def test_what_is_no_data_set_is_a_sentence(
    words: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    cell, rod = GOOD["categories"]
    contents: dict[str, Any] = {
        "good": GOOD,
        "same": GOOD,
        "other": GOOD | {"categories": [rod, {"id": 0, "name": "Cell"}]},
        "list": [GOOD],
        "twice": GOOD | {"categories": [cell, {"id": 0, "name": "rod"}]},
    }
    for name, content in contents.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    (tmp_path / "cut.json").write_text(json.dumps(GOOD)[:20])
    (tmp_path / "sets.toml").write_text('x = "good.json"\n[y]\nannotations = "good.json"\n'
                                        '[z]\nannotations = "good.json"\nimages = 3\n')  # fmt: skip
    monkeypatch.setenv(VARIABLE, os.path.join(tmp_path, "sets.toml"))
    before = files(tmp_path)
    with pytest.raises(UserError, match=message) as error:
        launch.transfer.run(complete(words))
    assert "\n" not in str(error.value) and files(tmp_path) == before


def test_a_file_of_data_sets_that_is_none_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sets.toml").write_text("[x\n")
    monkeypatch.setenv(VARIABLE, os.path.join(tmp_path, "sets.toml"))
    with pytest.raises(UserError, match=r"sets\.toml is not TOML: "):
        launch.transfer.run(complete(f"{DEMO} x x"))
