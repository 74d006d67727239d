"""Requests that the training mapper refuses, and objects that Detectron2 leaves out."""

import json
from pathlib import Path

import pytest
from detectron2.data.datasets import load_coco_json

from common.errors import UserError
from detection.annotations import judge
from detection.mapper import CROPS, TrainMapper
from tests.detection.helpers import config
from tests.detection.small_datasets import instances


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ("INPUT.MIN_SIZE_TRAIN_SAMPLING", "relative_range"),
            r"INPUT\.MIN_SIZE_TRAIN_SAMPLING is relative_range .*; give choice and any sizes",
        ),
        (
            ("INPUT.MIN_SIZE_TRAIN_SAMPLING", "range", "INPUT.MIN_SIZE_TRAIN", (64,)),
            r"is range and INPUT\.MIN_SIZE_TRAIN \(64,\); .* or range and two",
        ),
        (("INPUT.MIN_SIZE_TRAIN", ()), r"is choice and INPUT\.MIN_SIZE_TRAIN \(\); give choice"),
        (
            ("INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", "square"),
            rf"INPUT\.CROP\.TYPE is square; choose one of {', '.join(CROPS)}",
        ),
    ],
)
def test_what_a_config_cannot_ask_for(overrides: tuple[object, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        TrainMapper(config("demo_R_18_FPN", *overrides))


def test_objects_without_an_area_are_left_out_anyway(demo_root: Path, tmp_path: Path) -> None:
    """As of COCO's train2017, which need not be written anew for two of its objects."""
    content = instances()
    image = next(i for i in content["images"] if i["id"] == content["annotations"][0]["image_id"])
    first, *rest = (a for a in content["annotations"] if a["image_id"] == image["id"])
    line = [[296.65, 388.33, 296.65, 388.33, 297.68, 388.33, 297.68, 388.33]]  # annotation 918
    flat = first | {"id": 10**6, "segmentation": line, "bbox": [296.65, 388.33, 1.03, 0.0]}
    short = first | {"id": 10**6 + 1, "segmentation": [[3, 3, 9, 9]]}
    content |= {"images": [image], "annotations": [flat, first, short, *rest]}
    found, _ = judge(content, scored=False, masks=True)
    assert found.unusable == 2 and found.objects == 1 + len(rest) and not found.changed
    (tmp_path / "train.json").write_text(json.dumps(content))
    folder = demo_root / "coco" / "val2017"
    (record,) = load_coco_json(str(tmp_path / "train.json"), str(folder))
    mapped = TrainMapper(config("demo_R_18_FPN", "INPUT.MIN_SIZE_TRAIN", (64,)))(record)
    assert len(mapped["instances"]) == 1 + len(rest)
    assert mapped["instances"].gt_boxes.nonempty().all()
