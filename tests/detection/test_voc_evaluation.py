"""VOC's AP: a case computed by hand, perfect answers, classes that are absent."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_pascal_voc
from detectron2.structures import Instances
from PIL import Image

import detection  # noqa: F401  registers the embedded data
from common.errors import UserError
from detection.evaluation import DETECTION, evaluate, kind_of
from tests.detection.helpers import config
from tests.detection.oracles import Oracle, answer

XML = (
    "<annotation><size><width>{side}</width><height>{side}</height><depth>3</depth></size>"
    "{objects}</annotation>"
)
OBJECT = (
    "<object><name>{name}</name><pose>Unspecified</pose><truncated>0</truncated>"
    "<difficult>{difficult}</difficult><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax>"
    "<ymax>{y1}</ymax></bndbox></object>"
)


def voc_config(name: str) -> Any:
    return config("demo_voc_R_18_FPN", "DATASETS.TEST", (name,), "DATALOADER.NUM_WORKERS", 0)


def truth(name: str) -> dict[str, Instances]:
    """The annotated objects, in Detectron2's coordinates, by the name of their image's file."""
    return {
        Path(record["file_name"]).name: answer(
            record["height"],
            record["width"],
            [a["bbox"] for a in record["annotations"]],
            [a["category_id"] for a in record["annotations"]],
        )
        for record in DatasetCatalog.get(name)
    }


@pytest.fixture
def by_hand(tmp_path: Path) -> Iterator[Any]:
    """Two images: a cat in each, one more that is difficult, and a dog; no bird that counts."""
    name = f"voc_by_hand_{tmp_path.name}"
    objects = {
        "1": [("cat", 0, (11, 11, 20, 20)), ("dog", 0, (31, 31, 40, 40))],
        "2": [("cat", 0, (11, 11, 20, 20)), ("cat", 1, (31, 31, 40, 40)),
              ("bird", 1, (1, 1, 5, 5))],
    }  # fmt: skip
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (tmp_path / folder).mkdir(parents=True)
    for image, found in objects.items():
        inside = "".join(
            OBJECT.format(name=label, difficult=difficult, x0=x0, y0=y0, x1=x1, y1=y1)
            for label, difficult, (x0, y0, x1, y1) in found
        )
        (tmp_path / "Annotations" / f"{image}.xml").write_text(XML.format(side=50, objects=inside))
        Image.new("RGB", (50, 50)).save(tmp_path / "JPEGImages" / f"{image}.jpg")
    (tmp_path / "ImageSets" / "Main" / "test.txt").write_text("1\n2\n")
    register_pascal_voc(name, str(tmp_path), "test", 2007, ("bird", "cat", "dog"))
    MetadataCatalog.get(name).evaluator_type = "pascal_voc"
    yield voc_config(name)
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def test_a_case_computed_by_hand(by_hand: Any, tmp_path: Path) -> None:
    """By VOC2007's rule: the mean of the best precision at the recalls 0, 0.1, ..., 1.

    Cats, by score: 0.9 right; 0.8 nowhere; 0.7 covers 60 of 100 pixels; 0.6 the difficult one,
    which counts for nothing. Up to an overlap of 0.6 precisions are 1, 1/2, 2/3 at the recalls
    1/2, 1/2, 1: six times 1 and five times 2/3, AP 28/33. Above it six times 1, AP 6/11. The dog
    is not found, AP 0; no bird counts.
    """
    boxes = ([10, 10, 20, 20], [30, 10, 40, 20])
    more = ([10, 10, 20, 16], [30, 30, 40, 40], [0, 0, 9, 9])
    answers = {
        "1.jpg": answer(50, 50, boxes, [1, 1], [0.9, 0.8]),
        "2.jpg": answer(50, 50, more, [1, 1, 0], [0.7, 0.6, 0.9]),
    }
    found = evaluate(by_hand, DETECTION, Oracle(answers), str(tmp_path))
    cat = {"box_AP50": 28 / 33, "box_AP75": 6 / 11, "box_AP": (2 * 28 / 33 + 8 * 6 / 11) / 10}
    assert found == pytest.approx({name: 100 * ap / 2 for name, ap in cat.items()})
    per_class = json.loads((tmp_path / "per_class.json").read_text())
    assert per_class == {
        name: {"cat": pytest.approx(100 * cat[name], abs=1e-4), "dog": 0}
        for name in ("box_AP", "box_AP50")
    }
    lines = json.loads((tmp_path / "voc_predictions.json").read_text())
    assert {name: len(found) for name, found in lines.items()} == {"cat": 4, "bird": 1}
    assert lines["cat"][0] == "1 0.900 11.0 11.0 20.0 20.0"
    nothing = Oracle({name: one[:0] for name, one in answers.items()})
    assert evaluate(by_hand, DETECTION, nothing, str(tmp_path)) == dict.fromkeys(found, 0.0)


def test_perfect_answers_score_100_on_voc(real_data: Path, tmp_path: Path) -> None:
    name = "voc_2007_test"
    cfg = config("pascal_voc_R_50_C4_24k", "DATALOADER.NUM_WORKERS", 0)
    assert cfg.DATASETS.TEST[0] == name and len(truth(name)) == 60
    found = evaluate(cfg, DETECTION, Oracle(truth(name)), str(tmp_path))
    assert found == pytest.approx({"box_AP": 100, "box_AP50": 100, "box_AP75": 100})
    some = {image: objects[:1] for image, objects in truth(name).items()}
    assert 20 < evaluate(cfg, DETECTION, Oracle(some), str(tmp_path))["box_AP"] < 80


def test_voc_has_no_masks() -> None:
    cfg = config("demo_voc_R_18_FPN", "MODEL.MASK_ON", True)
    with pytest.raises(
        UserError, match=r"MODEL\.MASK_ON is True, but demo_voc_2007_test has boxes"
    ):
        kind_of(cfg, [DETECTION])
    cfg.DATASETS.TEST = ("demo_coco_val",)
    with pytest.raises(
        UserError, match="but demo_voc_2007_trainval has boxes only; set it to Fals"
    ):
        kind_of(cfg, [DETECTION])
