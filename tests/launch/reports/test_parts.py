"""What the report shows of predictions and of alignment maps, against what is known of them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from hotcoco import COCO
from PIL import Image

import demo
from common.errors import UserError
from detection.evaluation import DETECTION, evaluate
from launch.reports import __main__ as picture
from launch.reports.alignment import default_images, stages
from launch.reports.collect import Run
from launch.reports.errors import KINDS, errors
from launch.reports.pictures import objects
from launch.reports.predictions import detections, ground_truth, per_class
from tests.detection.oracles import Oracle
from tests.detection.test_voc_evaluation import truth, voc_config


def run_of(made: Path, name: str, kind: str = "transfer") -> Run:
    folder = made / "runs" / kind / name
    return Run(1, kind, folder, json.loads((folder / "metrics.json").read_text()))


@pytest.mark.parametrize("moved", [0, 40])
def test_perfect_answers_have_no_errors_on_voc_and_moved_ones_are_poor_boxes(
    output: Path, moved: float
) -> None:
    """Boxes that cover six tenths of their objects' width, and so of IoU between 0.1 and 0.5."""
    answers = truth("demo_voc_2007_test")
    for found in answers.values():
        boxes = found.pred_boxes.tensor
        if moved:
            boxes[:, 0] = boxes[:, 2] - 0.4 * (boxes[:, 2] - boxes[:, 0])
    run = run_of(output, "voc")
    cfg = voc_config("demo_voc_2007_test")
    evaluate(cfg, DETECTION, Oracle(answers), str(run.folder / "inference"))
    found = ground_truth(run)
    judged = errors(found, COCO(found.annotations), detections(run, found))
    assert judged is not None and sum(judged.f1) == len(answers) == 12
    if moved:
        assert judged.delta_ap["Loc"] > 50 and judged.f1[0] == 12
        assert {row["fp"] for row in judged.hardest} == {row["fn"] for row in judged.hardest}
    else:
        assert judged.delta_ap == pytest.approx(dict.fromkeys(KINDS, 0), abs=1e-9)
        assert judged.f1 == [0] * 9 + [12] and judged.doubtful == 0
        scores = [ap for ap in per_class(run)["box_AP50"].values() if ap is not None]
        assert scores == [100.0] * len(scores) and scores


def test_masks_and_boxes_are_drawn_where_they_are(made: Path) -> None:
    run = run_of(made, "seed0")
    found = ground_truth(run)
    one = found.annotations["annotations"][0]
    number = one["image_id"]
    plain = np.asarray(objects(found, number, []), float)
    drawn = np.asarray(objects(found, number, [one]), float)
    rows, columns = np.where(np.abs(drawn - plain).sum(2) > 30)
    image = next(i for i in found.annotations["images"] if i["id"] == number)
    scale = plain.shape[1] / image["width"]
    x, y, width, height = (scale * side for side in one["bbox"])
    assert abs(columns.min() - x) < 6 and abs(rows.min() - y) < 6
    assert columns.max() > x + 0.8 * width and rows.max() > y + 0.8 * height


def test_own_data_are_found_by_what_the_run_kept(output: Path, demo_root: Path) -> None:
    run = run_of(output, "seed0")
    metadata = MetadataCatalog.get("demo_coco_val")
    config = run.folder / "config.yaml"
    config.write_text(config.read_text().replace("demo_coco_val", "cells_val"))
    with pytest.raises(UserError, match=r"^the test set cells_val is not known here"):
        ground_truth(run_of(output, "seed0"))
    categories = [
        (c["id"], c["name"]) for c in json.loads(Path(metadata.json_file).read_text())["categories"]
    ]
    kept = {"name": "cells_val", "annotations": metadata.json_file, "images": metadata.image_root,
            "sha256": "0", "categories": categories}  # fmt: skip
    (run.folder / "datasets.json").write_text(json.dumps([kept]))
    found = ground_truth(run_of(output, "seed0"))
    DatasetCatalog.remove("cells_val")
    MetadataCatalog.remove("cells_val")
    assert found.classes == list(demo.CLASSES) and len(found.images) == 10


def test_maps_of_the_start_and_of_each_checkpoint_add_up_to_one(made: Path) -> None:
    run = run_of(made, "lewel", "pretrain")
    images = default_images(json.loads(run.config), count=2)
    found = stages(run.folder, images, 128)
    assert [stage.name for stage in found] == ["initialisation", "epoch 2", "epoch 3"]
    for stage in found:
        assert stage.maps.shape == (2, 4, 4, 16, 16)  # the tiny network's stride is 8
        torch.testing.assert_close(stage.maps.sum((3, 4)), torch.ones(2, 4, 4))
        assert stage.maps.max() < np.e**2 / 256 and stage.maps.min() > np.e**-2 / 256  # cosines
    assert (found[0].maps - found[2].maps).abs().max() > 1e-4


def test_a_checkpoint_cut_short_is_passed_over(output: Path) -> None:
    run = run_of(output, "lewel", "pretrain")
    newest = max(run.folder.glob("checkpoint_*"))
    newest.write_bytes(newest.read_bytes()[:1000])
    images = default_images(json.loads(run.config), count=1)
    names = [stage.name for stage in stages(run.folder, images, 64)]
    assert names == ["initialisation", "epoch 2"]


def test_the_picture_of_maps(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, file = str(made / "runs" / "pretrain" / "lewel"), tmp_path / "maps.png"
    image = next((demo.default_root() / "imagenet" / "val").glob("*/*.jpg"))

    def told(*words: str) -> str:
        with pytest.raises(SystemExit) as end:
            picture.main([*words])
        assert end.value.code == (0 if file.exists() else 2)
        return capsys.readouterr().err

    assert "give one in .webp or .png" in told(run, str(tmp_path / "maps.gif"))
    assert "cannot be read as an image" in told(run, str(file), str(Path(run) / "log.txt"))
    assert "is not the folder of a pre-training run" in told(str(tmp_path), str(file))
    empty = shutil.copytree(run, tmp_path / "empty", ignore=shutil.ignore_patterns("checkpoint*"))
    assert f"{empty} has no checkpoint yet" in told(str(empty), str(file), str(image))
    assert told(run, str(file), str(image)) == ""
    with Image.open(file) as found:
        assert found.height / found.width == pytest.approx(3 / 5, rel=0.05)  # states by heads
