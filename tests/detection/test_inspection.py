"""Datasets are counted, and what is wrong with them is named before training."""

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from detectron2.data import DatasetCatalog
from PIL import Image

import demo
from common.errors import UserError
from detection import inspection
from detection.datasets import require_datasets
from detection.inspection import inspect, inspect_datasets, usable_datasets
from tests.detection.helpers import config, warnings
from tests.detection.small_datasets import cfg_of, coco, cut, instances, replaced, voc


def test_the_embedded_data_is_counted(demo_root: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = json.loads(
        (demo_root / "coco" / "annotations" / "instances_train2017.json").read_text()
    )
    report = inspect("demo_coco_train")
    assert (report.images, report.objects) == (len(content["images"]), len(content["annotations"]))
    assert not report.missing and not report.outside and not report.empty
    names = (demo_root / "VOC2007" / "ImageSets" / "Main" / "test.txt").read_text().split()
    objects = sum(
        (demo_root / "VOC2007" / "Annotations" / f"{name}.xml").read_text().count("<object>")
        for name in names
    )
    with caplog.at_level(logging.INFO, "detection"):
        inspect_datasets(cfg_of("demo_coco_train"))
    counts = f"dataset demo_voc_2007_test: {len(names)} images, {objects} objects"
    assert counts in caplog.messages
    assert any(m.startswith(f"dataset demo_coco_train: {report.images}") for m in caplog.messages)


@pytest.mark.parametrize(
    ("name", "images", "objects", "empty"),
    [
        ("coco_2017_train", 70, 916, ()),
        ("coco_2017_val", 50, 581, ()),
        ("voc_2007_trainval", 60, None, ()),
        ("voc_2012_trainval", 62, None, ("aeroplane",)),  # the slice has none
    ],
)
def test_real_data_is_counted(
    real_data: Path, name: str, images: int, objects: int | None, empty: tuple[str, ...]
) -> None:
    report = inspect(name)
    assert report.images == images and objects in (None, report.objects)
    assert not report.missing and not report.outside and report.empty == empty


def test_boxes_outside_and_empty_classes_are_named_and_no_error(
    demo_root: Path, tmp_path: Path, registered: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    content = instances(demo_root)
    crescent, disc = demo.COCO_IDS[0], demo.COCO_IDS[2]
    kept = [a for a in content["annotations"] if a["category_id"] not in (crescent, disc)]
    sizes = {i["id"]: (i["width"], i["height"], i["file_name"]) for i in content["images"]}
    width, height, file_name = sizes[kept[0]["image_id"]]
    beyond = [[-5, 0, 9, 9], [0, 0, width + 2, 9], [0, height - 4, 9, 9]]
    inside = [[0, 0, width, height], [-0.5, 0, width + 1, height]]
    kept += [{**kept[0], "id": 10**6 + i, "bbox": box} for i, box in enumerate(beyond + inside)]
    name = coco(demo_root, tmp_path, registered, annotations=kept)
    report = inspect(name)
    assert report.outside == (str(tmp_path / "val2017" / file_name),) * 3
    assert report.empty == ("crescent", "disc")
    with caplog.at_level(logging.WARNING, "detection"):
        inspect_datasets(cfg_of(name))
    assert [m for m in caplog.messages if m.startswith(f"dataset {name}")] == [
        f"dataset {name}: boxes that reach outside their images, cut there: 3 "
        f"({', '.join(report.outside)})",
        f"dataset {name}: classes without an object: 2 (crescent, disc)",
    ]


def test_missing_images_of_a_training_set_are_named_of_a_test_set_refused(
    demo_root: Path, tmp_path: Path, registered: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    name = voc(demo_root, tmp_path, registered)
    first, *others = (
        tmp_path / "VOC2007" / "JPEGImages" / f"{one}.jpg"
        for one in (tmp_path / "VOC2007/ImageSets/Main/test.txt").read_text().split()
    )
    first.unlink()
    with caplog.at_level(logging.WARNING, "detection"):
        inspect_datasets(cfg_of(name))
    assert warnings(caplog) == [
        f"dataset {name}: missing files, passed over in training: 1 ({first})"
    ]
    caplog.clear()
    with pytest.raises(UserError, match=rf"{name} lacks 1 files of its 4 images, such as {first}"):
        inspect_datasets(cfg_of("demo_voc_2007_trainval", name))
    assert not any("missing files" in message for message in caplog.messages)
    for path in others:
        path.unlink()
    with pytest.raises(UserError, match=f"{name} lacks 4 files of its 4 images"):
        inspect_datasets(cfg_of(name))


def with_masks(train: str, test: str = "demo_coco_val", form: str = "polygon") -> Any:
    datasets = ("DATASETS.TRAIN", (train,), "DATASETS.TEST", (test,))
    return config("demo_R_18_FPN", *datasets, "INPUT.MASK_FORMAT", form)


@pytest.mark.parametrize("change", [{"bbox": [9, 9, -3, -3]}, {"segmentation": None}])
def test_a_broken_object_of_a_training_set_is_left_out_named_and_counted(
    demo_root: Path, tmp_path: Path, registered: list[str], caplog: pytest.LogCaptureFixture,
    change: dict[str, Any],
) -> None:  # fmt: skip
    content = instances(demo_root)
    first, *others = content["annotations"]
    name = coco(demo_root, tmp_path, registered, annotations=[replaced(first, change), *others])
    (sentence,) = require_datasets(with_masks(name))
    assert re.match(
        rf"dataset {name}: images and annotations of {tmp_path}/val\.json that cannot be trained "
        rf"on, left out: 1 \(annotation {first['id']} of \d+\.jpg: ",
        sentence,
    )
    with (
        caplog.at_level(logging.WARNING, "detection"),
        usable_datasets(with_masks(name), tmp_path / "run"),
    ):
        records = DatasetCatalog.get(name)
    assert sentence in warnings(caplog)
    assert sum(len(r["annotations"]) for r in records) == len(others)
    assert len(records) == len(content["images"])


def test_a_training_set_without_boxes_or_masks_or_objects_is_refused(
    demo_root: Path, tmp_path: Path, registered: list[str]
) -> None:
    annotations = instances(demo_root)["annotations"]
    crowds = [a | {"iscrowd": 1} for a in annotations]
    count = len(annotations)
    for number, (key, kept, message) in enumerate(
        [
            ("bbox", annotations, rf"cannot be trained on: {count} of .*: no box of four numbers"),
            (
                "segmentation",
                annotations,
                r"cannot be trained on: .* no mask, for which MODEL\.MAS",
            ),
            (
                "",
                crowds,
                "has no object to train on; annotate some in .*/val.json, or leave it out",
            ),
            ("", [], "has no object to train on; annotate some in .*/val.json, or leave it out"),
        ]
    ):
        folder = tmp_path / str(number)
        without = [replaced(a, {key: None}) for a in kept]
        name = coco(demo_root, folder, registered, annotations=without)
        with pytest.raises(UserError, match=f"dataset {name} {message}"):
            require_datasets(with_masks(name))
    cfg = with_masks(name)
    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = False
    require_datasets(cfg)
    inspect_datasets(cfg)


def test_masks_in_run_lengths_are_no_polygons(
    demo_root: Path, tmp_path: Path, registered: list[str]
) -> None:
    content = instances(demo_root)
    sizes = {i["id"]: [i["height"], i["width"]] for i in content["images"]}
    masks = [
        a | {"segmentation": {"size": sizes[a["image_id"]], "counts": [0, h * w]}}
        for a in content["annotations"]
        for h, w in [sizes[a["image_id"]]]
    ]
    name = coco(demo_root, tmp_path, registered, annotations=masks)
    with pytest.raises(
        UserError, match=r"INPUT\.MASK_FORMAT is polygon, but .*; set it to bitmask"
    ):
        require_datasets(with_masks(name))
    assert require_datasets(with_masks(name, name, "bitmask")) == []


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
    demo_root: Path, tmp_path: Path, registered: list[str], caplog: pytest.LogCaptureFixture,
    spoil: Callable[[Path], None], why: str,
) -> None:  # fmt: skip
    content = instances(demo_root)
    content["images"][3] |= {"width": 64, "height": 48}
    name = coco(demo_root, tmp_path, registered, images=content["images"])
    path = tmp_path / "val2017" / content["images"][3]["file_name"]
    Image.new("RGB", (64, 48)).save(path)
    inspect_datasets(with_masks(name, name))
    turned(path, 3)  # upside down
    inspect_datasets(with_masks(name, name))
    spoil(path)
    with caplog.at_level(logging.WARNING, "detection"):
        inspect_datasets(with_masks(name))
    (warning,) = (w for w in warnings(caplog) if "not as annotated" in w)
    assert re.fullmatch(
        rf"dataset {name}: images not as annotated, passed over, of 10 looked at: 1 "
        rf"\({path} \({why}\)\)",
        warning,
    )
    message = rf"{name} cannot be scored by: 1 of 10 images are not as annotated, such as {path} "
    with pytest.raises(UserError, match=rf"{message}\({why}\); mend them or {tmp_path}/val\.json"):
        inspect_datasets(with_masks("demo_coco_train", name))


def test_of_a_large_training_set_a_part_is_looked_at(demo_root: Path, tmp_path: Path) -> None:
    records = DatasetCatalog.get("demo_coco_train")
    looked_at: list[str] = []
    with mock.patch.object(inspection, "_mismatch", lambda r: looked_at.append(r["file_name"])):
        inspect("demo_coco_train", sample=5)
        assert looked_at == [records[i]["file_name"] for i in range(0, len(records), 5)]
        inspect("demo_coco_train")
    assert len(looked_at) == 5 + len(records)


def test_a_broken_json_is_named(demo_root: Path, tmp_path: Path, registered: list[str]) -> None:
    name = coco(demo_root, tmp_path, registered)
    cut(tmp_path / "val.json")
    wanted = rf"dataset {name} cannot be read: .*/val\.json: .*; mend .*/val\.json\.$"
    for check in (require_datasets, inspect_datasets):
        with pytest.raises(UserError, match=wanted):
            check(cfg_of(name))
