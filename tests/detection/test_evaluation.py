"""The evaluator's numbers are pycocotools', to the last digits; kinds of test sets."""

import inspect
import json
from pathlib import Path

import hotcoco
import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import demo
from common.errors import UserError
from detection.evaluation import AP_NAMES, DETECTION, evaluate, kind_of
from tests.detection.helpers import config
from tests.detection.oracles import (
    SMALL,
    Oracle,
    answer,
    assert_scores_are_pycocotools,
    perturbed,
    reference,
    truth_of,
)


def test_what_it_is_compared_with_is_pycocotools_own() -> None:
    for own, other in ((COCO, hotcoco.COCO), (COCOeval, hotcoco.COCOeval)):
        assert own is not other and own.__module__.startswith("pycocotools.")
        assert "pycocotools" in inspect.getfile(own)


def test_it_equals_pycocotools(tmp_path: Path) -> None:
    answers = perturbed(truth_of("demo_coco_val"))
    found = assert_scores_are_pycocotools(config("demo_R_18_FPN", *SMALL), answers, tmp_path)
    assert 5 < found["box_AP"] < 95 and 5 < found["mask_AP"] < 95  # neither perfect nor nothing


def test_it_equals_pycocotools_on_coco(tmp_path: Path, real_data: Path) -> None:
    truth = truth_of("coco_2017_val")
    cfg = config("coco_R_50_FPN_1x_infomin", *SMALL)
    found = assert_scores_are_pycocotools(cfg, perturbed(truth), tmp_path)
    assert np.isfinite(list(found.values())).all()  # small, medium, large objects, and crowds
    assert any(annotation["iscrowd"] for annotation in truth.anns.values())


def test_no_detections_score_0(tmp_path: Path) -> None:
    nothing = {name: one[:0] for name, one in perturbed(truth_of("demo_coco_val")).items()}
    cfg = config("demo_R_18_FPN", *SMALL)
    assert assert_scores_are_pycocotools(cfg, nothing, tmp_path)["box_AP"] == 0


def test_boxes_alone_are_scored(tmp_path: Path) -> None:
    answers = perturbed(truth_of("demo_coco_val"))
    cfg = config("demo_R_18_FPN", "MODEL.MASK_ON", False, *SMALL)
    found = evaluate(cfg, DETECTION, Oracle(answers), str(tmp_path))
    assert list(found) == [f"box_{ap}" for ap in AP_NAMES]
    wanted = reference(truth_of("demo_coco_val"), answers, ["bbox"])
    np.testing.assert_allclose(list(found.values()), wanted, rtol=0, atol=1e-6)
    per_class = json.loads((tmp_path / "per_class.json").read_text())
    assert list(per_class) == ["box_AP"] and list(per_class["box_AP"]) == list(demo.CLASSES)
    present = [ap for ap in per_class["box_AP"].values() if ap is not None]
    assert np.mean(present) == pytest.approx(wanted[0], abs=1e-4)


@pytest.mark.parametrize(("name", "kind"), [("lvis_v1_val", "lvis"), ("mine", "none")])
def test_a_test_set_without_an_evaluator_is_named(name: str, kind: str) -> None:
    kind_of(config("demo_R_18_FPN"), [DETECTION])
    cfg = config("demo_R_18_FPN", "DATASETS.TEST", ("demo_coco_val", name))
    with pytest.raises(UserError, match=rf"{name} is evaluated by '{kind}'; only coco, pascal_voc"):
        kind_of(cfg, [DETECTION])


@pytest.mark.parametrize("names", [(), ("demo_coco_val", "coco_2017_val")])
def test_a_row_of_the_results_is_of_one_test_set(names: tuple[str, ...]) -> None:
    cfg = config("demo_R_18_FPN", "DATASETS.TEST", names)
    with pytest.raises(UserError, match=rf"DATASETS\.TEST names {len(names)} data sets"):
        kind_of(cfg, [DETECTION])


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_of_the_test_set_is_named(tmp_path: Path, workers: int) -> None:
    records = [dict(r) for r in DatasetCatalog.get("demo_coco_val")[:2]]
    (tmp_path / "cut.jpg").write_bytes(Path(records[1]["file_name"]).read_bytes()[:500])
    records[1]["file_name"] = str(tmp_path / "cut.jpg")
    name = f"cut_short_{workers}"
    DatasetCatalog.register(name, lambda: records)
    metadata = MetadataCatalog.get("demo_coco_val").as_dict()
    MetadataCatalog.get(name).set(**{k: v for k, v in metadata.items() if k != "name"})
    cfg = config(
        "demo_R_18_FPN", "DATASETS.TEST", (name,), *SMALL, "DATALOADER.NUM_WORKERS", workers
    )
    answers = {**perturbed(truth_of("demo_coco_val")), "cut.jpg": answer(9, 9, [], [])}
    with pytest.raises(UserError) as error:
        evaluate(cfg, DETECTION, Oracle(answers), str(tmp_path / "inference"))
    assert str(error.value).startswith(f"{tmp_path}/cut.jpg of the test set cannot be read")
    assert "\n" not in str(error.value)
