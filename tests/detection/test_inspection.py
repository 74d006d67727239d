"""Datasets are counted, and what is wrong with them is named before training."""

import json
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances, register_pascal_voc

import demo
from common.errors import UserError
from detection.inspection import inspect, inspect_datasets
from tests.detection.helpers import config

Change = Callable[[Path], None]


@pytest.fixture
def registered() -> Iterator[list[str]]:
    """Names of datasets to be forgotten."""
    names: list[str] = []
    yield names
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def coco(root: Path, folder: Path, registered: list[str], **changes: Any) -> str:
    """The embedded COCO val set in a folder, with some of its JSON replaced."""
    shutil.copytree(root / "coco" / "val2017", folder / "val2017")
    content = json.loads((root / "coco" / "annotations" / "instances_val2017.json").read_text())
    (folder / "val.json").write_text(json.dumps(content | changes))
    name = f"coco_{folder.name}"
    register_coco_instances(name, {}, str(folder / "val.json"), str(folder / "val2017"))
    registered.append(name)
    return name


def voc(root: Path, folder: Path, registered: list[str]) -> str:
    """The embedded VOC2007 in a folder."""
    shutil.copytree(root / "VOC2007", folder / "VOC2007")
    name = f"voc_{folder.name}"
    register_pascal_voc(name, str(folder / "VOC2007"), "test", 2007, demo.VOC_NAMES)
    MetadataCatalog.get(name).evaluator_type = "pascal_voc"
    registered.append(name)
    return name


def cfg_of(train: str, test: str = "demo_voc_2007_test") -> Any:
    return config("demo_voc_R_18_FPN", "DATASETS.TRAIN", (train,), "DATASETS.TEST", (test,))


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
    path = demo_root / "coco" / "annotations" / "instances_val2017.json"
    content = json.loads(path.read_text())
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
    assert caplog.messages == [
        f"dataset {name}: missing files, passed over in training: 1 ({first})"
    ]
    with pytest.raises(UserError, match=rf"{name} lacks 1 files of its 4 images, such as {first}"):
        inspect_datasets(cfg_of("demo_voc_2007_trainval", name))
    for path in others:
        path.unlink()
    with pytest.raises(UserError, match=f"{name} lacks 4 files of its 4 images"):
        inspect_datasets(cfg_of(name))


def _cut(path: Path) -> None:
    path.write_text(path.read_text()[:200])


def _rename_a_class(path: Path) -> None:
    path.write_text(path.read_text().replace("<name>", "<name>new"))


@pytest.mark.parametrize("change", [_cut, Path.unlink, _rename_a_class])
def test_a_broken_annotation_file_is_named(
    demo_root: Path, tmp_path: Path, registered: list[str], change: Change
) -> None:
    name = voc(demo_root, tmp_path, registered)
    path = max((tmp_path / "VOC2007" / "Annotations").iterdir())
    change(path)
    with pytest.raises(UserError, match=f"dataset {name} cannot be read: {path}: ") as error:
        inspect_datasets(cfg_of(name))
    assert "\n" not in str(error.value)


def test_a_broken_json_is_named(demo_root: Path, tmp_path: Path, registered: list[str]) -> None:
    name = coco(demo_root, tmp_path, registered)
    _cut(tmp_path / "val.json")
    with pytest.raises(UserError, match=rf"dataset {name} cannot be read: .*/val\.json: "):
        inspect_datasets(cfg_of(name))
