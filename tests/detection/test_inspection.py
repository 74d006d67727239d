"""Datasets are counted, and what is wrong with them is named before training."""

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from detectron2.data import DatasetCatalog
from PIL import Image

import demo
from common.errors import UserError
from detection import inspection
from detection.coco import require_usable
from detection.inspection import inspect_datasets, usable_datasets
from tests.detection.helpers import config, warnings
from tests.detection.small_datasets import cfg_of, instances, replaced


@pytest.fixture(autouse=True)
def logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "detection")


def test_real_data_are_counted(
    real_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, datasets in (
        ("coco_R_50_FPN_1x_infomin", ("coco_2017_train",)),
        ("pascal_voc_R_50_C4_24k", ("voc_2012_trainval", "voc_2007_trainval")),
    ):
        inspect_datasets(config(name, "DATASETS.TRAIN", datasets, "DATASETS.TEST", ()), tmp_path)
    voc_objects = [
        sum(
            (folder / "Annotations" / f"{one}.xml").read_text().count("<object>")
            for one in (folder / "ImageSets" / "Main" / "trainval.txt").read_text().split()
        )
        for folder in (real_data / "VOC2012", real_data / "VOC2007")
    ]
    assert [m for m in caplog.messages if "images, " in m] == [
        "dataset coco_2017_train: 70 images, 916 objects",
        f"dataset voc_2012_trainval: 62 images, {voc_objects[0]} objects",
        f"dataset voc_2007_trainval: 60 images, {voc_objects[1]} objects",
    ]
    assert warnings(caplog) == [  # the slice has none
        "dataset voc_2012_trainval: classes without an object: 1 (aeroplane)"
    ]


def test_boxes_outside_and_empty_classes_are_named_and_no_error(
    tmp_path: Path, coco: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    content = instances()
    first, third = demo.COCO_IDS[0], demo.COCO_IDS[2]
    kept = [a for a in content["annotations"] if a["category_id"] not in (first, third)]
    sizes = {i["id"]: (i["width"], i["height"], i["file_name"]) for i in content["images"]}
    width, height, file_name = sizes[kept[0]["image_id"]]
    beyond = [[-5, 0, 9, 9], [0, 0, width + 2, 9], [0, height - 4, 9, 9]]
    inside = [[0, 0, width, height], [-0.5, 0, width + 1, height]]
    kept += [{**kept[0], "id": 10**6 + i, "bbox": box} for i, box in enumerate(beyond + inside)]
    name = coco(annotations=kept)
    inspect_datasets(cfg_of(name), tmp_path)
    file = tmp_path / "val2017" / file_name
    assert warnings(caplog) == [
        f"dataset {name}: boxes that reach outside their images, cut there: 3 "
        f"({file}, {file}, {file})",
        f"dataset {name}: classes without an object: 2 (bricks, crosses)",
    ]


def test_missing_images_of_a_training_set_are_named_of_a_test_set_refused(
    tmp_path: Path, voc: str, caplog: pytest.LogCaptureFixture
) -> None:
    others = [
        tmp_path / "VOC2007" / "JPEGImages" / f"{one}.jpg"
        for one in (tmp_path / "VOC2007/ImageSets/Main/test.txt").read_text().split()
    ]
    first = others.pop(1)
    first.unlink()
    inspect_datasets(cfg_of(voc), tmp_path)
    assert warnings(caplog) == [
        f"dataset {voc}: missing files, passed over in training: 1 ({first})"
    ]
    with pytest.raises(UserError, match=rf"{voc} lacks 1 files of its 12 images, such as {first}"):
        inspect_datasets(cfg_of("demo_voc_2007_trainval", voc), tmp_path)
    for path in others:
        path.unlink()
    with pytest.raises(UserError, match=f"dataset {voc} is not whole"):
        inspect_datasets(cfg_of(voc), tmp_path)


def with_masks(train: str, test: str = "demo_coco_val", form: str = "polygon") -> Any:
    datasets = ("DATASETS.TRAIN", (train,), "DATASETS.TEST", (test,))
    return config("demo_R_18_FPN", *datasets, "INPUT.MASK_FORMAT", form)


@pytest.mark.parametrize("change", [{"bbox": [9, 9, -3, -3]}, {"segmentation": None}])
def test_a_broken_object_of_a_training_set_is_left_out_named_and_counted(
    tmp_path: Path, coco: Callable[..., str], caplog: pytest.LogCaptureFixture,
    change: dict[str, Any],
) -> None:  # fmt: skip
    content = instances()
    first, *others = content["annotations"]
    name = coco(annotations=[replaced(first, change), *others])
    (sentence,) = require_usable(with_masks(name))
    assert re.match(
        rf"dataset {name}: images and annotations of {tmp_path}/val\.json that cannot be trained "
        rf"on, left out: 1 \(annotation {first['id']} of \d+\.jpg: ",
        sentence,
    )
    with usable_datasets(with_masks(name), tmp_path / "run"):
        records = DatasetCatalog.get(name)
    assert sentence in warnings(caplog)
    assert sum(len(r["annotations"]) for r in records) == len(others)
    assert len(records) == len(content["images"])


NOTHING = "has no object to train on; annotate some in .*, or leave it out"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox": None}, r"cannot be trained on: \d+ of .*: no box of four numbers"),
        ({"segmentation": None}, r"cannot be trained on: .* no mask, for which MODEL\.MASK"),
        ({"iscrowd": 1}, NOTHING),
    ],
)
def test_a_training_set_without_boxes_or_masks_or_objects_is_refused(
    tmp_path: Path, coco: Callable[..., str], change: dict[str, Any], message: str
) -> None:
    without = [replaced(a, change) for a in instances()["annotations"]]
    name = coco(annotations=without)
    cfg = with_masks(name)
    with pytest.raises(UserError, match=f"dataset {name} {message}"):
        require_usable(cfg)
    if message == NOTHING:
        cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = False
        inspect_datasets(cfg, tmp_path)


def test_a_voc_training_set_without_objects_is_refused(tmp_path: Path, voc: str) -> None:
    for path in (tmp_path / "VOC2007" / "Annotations").iterdir():
        path.write_text(re.sub("(?s)<object>.*</object>", "", path.read_text()))
    with pytest.raises(UserError, match=f"dataset {voc} {NOTHING}"):
        inspect_datasets(cfg_of(voc), tmp_path)


def test_masks_in_run_lengths_are_no_polygons(coco: Callable[..., str]) -> None:
    content = instances()
    sizes = {i["id"]: [i["height"], i["width"]] for i in content["images"]}
    masks = [
        a | {"segmentation": {"size": sizes[a["image_id"]], "counts": [0, h * w]}}
        for a in content["annotations"]
        for h, w in [sizes[a["image_id"]]]
    ]
    name = coco(annotations=masks)
    with pytest.raises(
        UserError, match=r"INPUT\.MASK_FORMAT is polygon, but .*; set it to bitmask"
    ):
        require_usable(with_masks(name))
    assert require_usable(with_masks(name, name, "bitmask")) == []


def turned(path: Path, orientation: int) -> None:
    """Write what a camera does that was held on its side: pixels as they were, and a mark."""
    with Image.open(path) as image:
        exif = image.getexif()
        exif[0x0112] = orientation
        image.save(path, exif=exif)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (
            lambda path: turned(path, 6),
            "read as 48 x 64, for its EXIF data turn it by 90 degrees; annotated as 64 x 48",
        ),
        (
            lambda path: Image.new("RGB", (7, 9)).save(path),
            "read as 7 x 9; annotated as 64 x 48",
        ),
        (
            lambda path: path.write_bytes(b"no image"),
            "cannot be read: cannot identify image file.*",
        ),
    ],
)
def test_an_image_that_is_not_as_annotated_is_named(
    tmp_path: Path, coco: Callable[..., str], caplog: pytest.LogCaptureFixture,
    spoil: Callable[[Path], None], why: str,
) -> None:  # fmt: skip
    content = instances()
    content["images"][3] |= {"width": 64, "height": 48}
    name = coco(images=content["images"])
    path = tmp_path / "val2017" / content["images"][3]["file_name"]
    Image.new("RGB", (64, 48)).save(path)
    turned(path, 3)  # upside down
    inspect_datasets(with_masks(name, name), tmp_path)
    spoil(path)
    inspect_datasets(with_masks(name), tmp_path)
    (warning,) = (w for w in warnings(caplog) if "not as annotated" in w)
    assert re.fullmatch(
        rf"dataset {name}: images not as annotated, passed over, of 10 looked at: 1 "
        rf"\({path} \({why}\)\)",
        warning,
    )
    message = rf"{name} cannot be scored by: 1 of 10 images are not as annotated, such as {path} "
    with pytest.raises(UserError, match=rf"{message}\({why}\); mend them or {tmp_path}/val\.json"):
        inspect_datasets(with_masks("demo_coco_train", name), tmp_path)


def test_of_a_large_training_set_a_part_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[str] = []
    monkeypatch.setattr(inspection, "_mismatch", lambda r: looked_at.append(r["file_name"]))
    monkeypatch.setattr(inspection, "SAMPLE", 5)
    inspect_datasets(with_masks("demo_coco_train"), tmp_path)
    train, test = ([r["file_name"] for r in DatasetCatalog.get(f"demo_coco_{s}")]
                   for s in ("train", "val"))  # fmt: skip
    assert looked_at == [*train[:: -(-len(train) // 5)], *test]
