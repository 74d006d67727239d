"""The evaluator's numbers are pycocotools', to the last digits; kinds of test sets."""

import contextlib
import inspect
import io
import math
from pathlib import Path
from typing import Any

import hotcoco
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, Instances
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor, nn

from common.errors import UserError
from detection.evaluation import (
    AP_NAMES,
    DETECTION,
    evaluate,
    kind_of,
)
from tests.detection.helpers import config

ALL_NAMES = [f"{task}_{ap}" for task in ("box", "mask") for ap in AP_NAMES]


def perturbed(truth: COCO, image_id: int, generator: np.random.Generator) -> Instances:
    """Detections around an image's objects: moved, resized, doubled, missed, mistaken."""
    image = truth.imgs[image_id]
    size = np.array([image["width"], image["height"]] * 2, dtype=np.float32)
    categories = sorted(truth.cats)
    boxes, masks, classes = [], [], []
    for annotation in truth.imgToAnns[image_id]:
        for _ in range(int(generator.integers(0, 4))):
            x, y, w, h = annotation["bbox"]
            corners = np.array([x, y, x + w, y + h]) + np.array([w, h, w, h]) * generator.normal(
                0, 0.08, 4
            )
            boxes.append(np.clip(np.sort(corners.reshape(2, 2), 0).ravel(), 0, size))
            shift = generator.normal(0, 0.08, 2) * (h, w)
            masks.append(np.roll(truth.annToMask(annotation), shift.astype(int), (0, 1)))
            right = categories.index(annotation["category_id"])
            wrong = int(generator.integers(len(categories)))
            classes.append(right if generator.random() < 0.8 else wrong)
    found = Instances((image["height"], image["width"]))
    found.pred_boxes = Boxes(torch.tensor(np.array(boxes, np.float32).reshape(-1, 4)))
    # Scores of two digits: many are equal, and their order matters too.
    found.scores = torch.tensor(generator.random(len(boxes)).round(2))
    found.pred_classes = torch.tensor(classes, dtype=torch.int64)
    shape = (len(masks), image["height"], image["width"])
    found.pred_masks = torch.tensor(np.array(masks, bool).reshape(shape))
    return found


class Oracle(nn.Module):
    """A detector that knows what it has to say about each image."""

    def __init__(self, detections: dict[int, Instances]) -> None:
        super().__init__()
        self.detections = detections

    def forward(self, inputs: list[dict[str, Any]]) -> list[dict[str, Instances]]:
        return [{"instances": self.detections[x["image_id"]]} for x in inputs]


def results(truth: COCO, detections: dict[int, Instances], task: str) -> list[dict[str, Any]]:
    """COCO's result format, written without Detectron2."""
    rows = []
    for image_id, found in detections.items():
        for i in range(len(found)):
            x0, y0, x1, y1 = found.pred_boxes.tensor[i].double().tolist()
            row = {"image_id": image_id, "score": float(found.scores[i]),
                   "category_id": sorted(truth.cats)[int(found.pred_classes[i])]}  # fmt: skip
            if task == "bbox":
                row["bbox"] = [x0, y0, x1 - x0, y1 - y0]
            else:  # sizes go by the mask's area, as COCO's server does it
                mask: Tensor = found.pred_masks[i]
                row["segmentation"] = rle.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))
            rows.append(row)
    return rows


def reference(truth: COCO, detections: dict[int, Instances], task: str) -> list[float]:
    """pycocotools' six APs, in percent."""
    with contextlib.redirect_stdout(io.StringIO()):
        rows = results(truth, detections, task)
        coco_eval = COCOeval(truth, truth.loadRes(rows) if rows else COCO(), task)
        coco_eval.evaluate()
        coco_eval.accumulate()
        coco_eval.summarize()
    return [100 * ap if ap >= 0 else math.nan for ap in coco_eval.stats[:6]]


def open_truth(name: str) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(MetadataCatalog.get(name).json_file)


def assert_equals_pycocotools(cfg: Any, folder: Path, seed: int) -> list[float]:
    truth = open_truth(cfg.DATASETS.TEST[0])
    generator = np.random.default_rng(seed)
    detections = {image_id: perturbed(truth, image_id, generator) for image_id in truth.imgs}
    found = evaluate(cfg, DETECTION, Oracle(detections), str(folder))
    wanted = [ap for task in ("bbox", "segm") for ap in reference(truth, detections, task)]
    assert list(found) == ALL_NAMES
    np.testing.assert_allclose(list(found.values()), wanted, rtol=0, atol=1e-6)
    assert 5 < found["box_AP"] < 95 and 5 < found["mask_AP"] < 95  # neither perfect nor nothing
    return wanted


def test_what_it_is_compared_with_is_pycocotools_own() -> None:
    for own, other in ((COCO, hotcoco.COCO), (COCOeval, hotcoco.COCOeval)):
        assert own is not other and own.__module__.startswith("pycocotools.")
        assert "pycocotools" in inspect.getfile(own)


SMALL = ("INPUT.MIN_SIZE_TEST", 32, "DATALOADER.NUM_WORKERS", 0)


def test_it_equals_pycocotools(tmp_path: Path, demo_root: Path) -> None:
    assert_equals_pycocotools(config("demo_R_18_FPN", *SMALL), tmp_path, seed=0)


def test_it_equals_pycocotools_on_coco(tmp_path: Path, real_data: Path) -> None:
    cfg = config("coco_R_50_FPN_1x_infomin", *SMALL)
    wanted = assert_equals_pycocotools(cfg, tmp_path, seed=0)
    assert np.isfinite(wanted).all()  # small, medium, large objects, and crowds
    assert any(annotation["iscrowd"] for annotation in open_truth("coco_2017_val").anns.values())


def test_no_detections_score_0(tmp_path: Path, demo_root: Path) -> None:
    truth = open_truth("demo_coco_val")
    nothing = {i: perturbed(truth, i, np.random.default_rng(0))[:0] for i in truth.imgs}
    found = evaluate(config("demo_R_18_FPN", *SMALL), DETECTION, Oracle(nothing), str(tmp_path))
    wanted = [ap for task in ("bbox", "segm") for ap in reference(truth, nothing, task)]
    assert list(found) == ALL_NAMES
    np.testing.assert_array_equal(list(found.values()), wanted)
    assert found["box_AP"] == 0


def test_boxes_alone_are_scored(tmp_path: Path, demo_root: Path) -> None:
    truth = open_truth("demo_coco_val")
    detections = {i: perturbed(truth, i, np.random.default_rng(i)) for i in truth.imgs}
    cfg = config("demo_R_18_FPN", "MODEL.MASK_ON", False, *SMALL)
    found = evaluate(cfg, DETECTION, Oracle(detections), str(tmp_path))
    assert list(found) == [f"box_{ap}" for ap in AP_NAMES]
    np.testing.assert_allclose(
        list(found.values()), reference(truth, detections, "bbox"), rtol=0, atol=1e-6
    )


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
def test_an_unreadable_image_of_the_test_set_is_named(
    tmp_path: Path, demo_root: Path, workers: int
) -> None:
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
    truth = open_truth("demo_coco_val")
    oracle = Oracle({i: perturbed(truth, i, np.random.default_rng(0)) for i in truth.imgs})
    with pytest.raises(UserError) as error:
        evaluate(cfg, DETECTION, oracle, str(tmp_path / "inference"))
    assert str(error.value).startswith(f"{tmp_path}/cut.jpg of the test set cannot be read")
    assert "\n" not in str(error.value)
