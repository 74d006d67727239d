"""Two processes, started once: the images, scores, files and process groups that they share."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.structures import Instances
from detectron2.utils import comm
from pycocotools.coco import COCO

import demo
from common import distributed
from common.distributed import World
from detection.compat import process_groups
from detection.evaluation import DETECTION, evaluate
from detection.inspection import usable_datasets
from detection.mapper import TrainMapper
from detection.stream import Stream
from tests.detection.helpers import config
from tests.detection.oracles import (
    SMALL,
    Oracle,
    answer,
    open_truth,
    perfect,
    perturbed,
    reference,
    truth_of,
)
from tests.detection.small_datasets import instances
from tests.detection.test_annotations import images
from tests.detection.test_voc_evaluation import truth as voc_truth
from tests.detection.test_voc_evaluation import voc_config
from tests.processes import gloos_threads, in_processes

VOC = "demo_voc_2007_test"
CATEGORIES = 1203  # LVIS'
IMAGES = str(demo.default_root() / "coco" / "val2017")


def many_categories() -> dict[str, Any]:
    """Embedded images without objects, or with crowds alone, and most categories nowhere."""
    content = instances()
    numbers = {image["id"]: n for n, image in enumerate(content["images"])}
    labels = {category["id"]: 30 * n for n, category in enumerate(content["categories"], 1)}
    for annotation in content["annotations"]:
        annotation["category_id"] = labels[annotation["category_id"]]
        annotation["iscrowd"] = int(numbers[annotation["image_id"]] % 4 == 1)
    kept = [a for a in content["annotations"] if numbers[a["image_id"]] % 4]
    categories = [{"id": n, "name": f"class {n}"} for n in range(1, CATEGORIES + 1)]
    return content | {"annotations": kept, "categories": categories}


def many_answers(truth: COCO) -> dict[str, Instances]:
    """On every image, those without objects too, and none on some."""
    found = perturbed(truth, seed=1)
    counts = Counter(a["category_id"] for a in truth.anns.values() if not a["iscrowd"])
    label = counts.most_common(1)[0][0] - 1  # Detectron2's, from 0
    for image in list(truth.imgs.values())[::8]:  # without objects
        assert not truth.imgToAnns[image["id"]]
        size = image["height"], image["width"]
        wrong = answer(*size, [[1.0, 2.0, 9.0, 12.0]], [label], [0.99], [np.ones(size)])
        found[image["file_name"]] = wrong
    return found


def moved(answers: dict[str, Instances]) -> Oracle:
    """Some boxes moved, of other scores."""
    generator = torch.Generator().manual_seed(0)
    for one in answers.values():
        one.scores = torch.rand(len(one), generator=generator)
        one.pred_boxes.tensor += 3 * torch.randn(len(one), 4, generator=generator)
    return Oracle(answers)


def _work(world: World, folder: Path) -> None:
    with process_groups(world):
        assert comm.get_local_size() == 2 and comm.get_local_rank() == world.rank
        assert comm.all_gather(world.rank) == [0, 1] and gloos_threads() > 0
        found: dict[str, Any] = {
            "epoch": _epoch(world),
            "many": _many_categories(folder),
            "voc": evaluate(voc_config(VOC), DETECTION, moved(voc_truth(VOC)), str(folder)),
            "repaired": _repaired(folder),
        }
        found["random"] = torch.rand(1).item()
    (folder / f"{world.rank}.json").write_text(json.dumps(found))
    distributed.stop()
    assert not gloos_threads()  # or one that is not at rest aborts the process at its end


def _epoch(world: World) -> list[str]:
    """Names of this process's images of an epoch."""
    cfg = config("demo_R_18_FPN", "SOLVER.IMS_PER_BATCH", 4, "INPUT.MIN_SIZE_TRAIN", (32,), *SMALL,
                 "DATALOADER.ASPECT_RATIO_GROUPING", False)  # fmt: skip
    stream = Stream(cfg, TrainMapper(cfg), 0)
    batches = zip(range(len(DatasetCatalog.get("demo_coco_train")) // 4), stream, strict=False)
    names = [x["file_name"] for _, batch in batches for x in batch]
    stream.unreadable = world.rank + 1
    stream.load_state_dict(stream.state_dict())
    assert stream.unreadable == (3 if world.is_main else 0)  # and 3 in all, still
    return names


def _many_categories(folder: Path) -> dict[str, float]:
    name = "many_categories"
    register_coco_instances(name, {}, str(folder / "annotations.json"), IMAGES)
    classes = ("MODEL.ROI_HEADS.NUM_CLASSES", CATEGORIES)
    cfg = config("demo_R_18_FPN", "DATASETS.TEST", (name,), *classes, *SMALL)
    return evaluate(cfg, DETECTION, Oracle(many_answers(truth_of(name))), str(folder / "many"))


def _repaired(folder: Path) -> dict[str, float]:
    register_coco_instances("of_words", {}, str(folder / "words.json"), IMAGES)
    cfg = config("demo_R_18_FPN", "DATASETS.TEST", ("of_words",), *SMALL)
    with usable_datasets(cfg, folder / "run"):
        return evaluate(cfg, DETECTION, perfect(instances()), str(folder / "words"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    (folder / "annotations.json").write_text(json.dumps(many_categories()))
    content = instances()
    images(lambda i: f"img_{i}")(content)
    (folder / "words.json").write_text(json.dumps(content))
    in_processes(_work, folder)
    return folder


@pytest.fixture(scope="module")
def found(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    here, there = (json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1))
    assert not (there["many"] or there["voc"] or there["repaired"])
    return here, there


def test_they_share_an_epoch(found: tuple[dict[str, Any], dict[str, Any]]) -> None:
    here, there = found
    count = len(DatasetCatalog.get("demo_coco_train"))
    assert len(here["epoch"]) == len(there["epoch"]) == count / 2
    assert len({*here["epoch"], *there["epoch"]}) == count
    assert here["random"] != there["random"]  # processes draw numbers of their own


def test_their_score_is_pycocotools_with_crowds_and_1203_categories(
    folder: Path, found: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    truth = open_truth(folder / "annotations.json")
    wanted = reference(truth, many_answers(truth))
    scores = found[0]["many"]
    np.testing.assert_allclose(list(scores.values()), wanted, rtol=0, atol=1e-9)
    assert 1 < scores["box_AP"] < 99
    assert {a["iscrowd"] for a in truth.anns.values()} == {0, 1}


def test_their_voc_score_is_that_of_one(
    tmp_path: Path, found: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    wanted = evaluate(voc_config(VOC), DETECTION, moved(voc_truth(VOC)), str(tmp_path))
    assert found[0]["voc"] == pytest.approx(wanted) and 0 < wanted["box_AP"] < 100


def test_they_use_one_repaired_file(
    folder: Path, found: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    assert found[0]["repaired"]["box_AP"] == pytest.approx(100)
    assert [p.name for p in (folder / "run" / "annotations").iterdir()] == ["of_words.json"]
