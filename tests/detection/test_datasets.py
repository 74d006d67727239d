"""Missing datasets are named, and the embedded ones are registered."""

import contextlib
from pathlib import Path

import pytest
from detectron2.data.datasets import register_coco_instances, register_pascal_voc

import demo
from common.errors import UserError
from detection import datasets
from detection.coco import require_usable
from detection.datasets import uses_demo
from tests.detection.helpers import config


@pytest.mark.parametrize("split", ["TRAIN", "TEST"])
def test_an_unknown_dataset_is_named(split: str) -> None:
    cfg = config("demo_R_18_FPN", f"DATASETS.{split}", ("coco_2071_val",))
    with pytest.raises(UserError, match="coco_2071_val is not a dataset"):
        require_usable(cfg)


def test_missing_files_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registered: list[str]
) -> None:
    register_coco_instances("coco_of_mine", {}, str(tmp_path / "a.json"), str(tmp_path / "images"))
    register_pascal_voc("voc_of_mine", str(tmp_path / "VOC"), "test", 2007, demo.VOC_NAMES)
    registered += ["coco_of_mine", "voc_of_mine"]
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    cfg = config("coco_R_50_C4_1x", "DATASETS.TEST", ())
    for name, lacking, made in (
        ("coco_of_mine", "a.json", tmp_path / "other.json"),
        ("coco_of_mine", "images", tmp_path / "a.json"),
        ("voc_of_mine", "VOC", tmp_path / "images"),
    ):
        made.touch()
        cfg.DATASETS.TRAIN = (name,)
        wanted = f"dataset {name} is not there: looked for {tmp_path}/{lacking}, under {tmp_path}; "
        with pytest.raises(UserError, match=f"^{wanted}set DETECTRON2_DATASETS to the folder that"):
            require_usable(cfg)
    monkeypatch.delenv("DETECTRON2_DATASETS")
    with pytest.raises(UserError, match=r"under datasets \(DETECTRON2_DATASETS is not set\); set"):
        require_usable(cfg)


def test_the_embedded_data_is_drawn_only_where_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    monkeypatch.setattr(datasets.demo, "ensure", lambda: drawn.append("drawn"))
    for name, demo_used in (("demo_R_18_FPN", True), ("coco_R_50_FPN_1x_infomin", False)):
        cfg = config(name)
        with contextlib.suppress(UserError):  # COCO may be missing
            require_usable(cfg)
        assert uses_demo(cfg) is demo_used and drawn == ["drawn"]
    assert uses_demo(config("coco_R_50_FPN_1x_infomin", "DATASETS.TEST", ("demo_coco_val",)))


@pytest.mark.parametrize("name", ["demo_R_18_FPN", "demo_voc_R_18_FPN"])
def test_another_number_of_classes_is_refused(name: str) -> None:
    message = r"ROI_HEADS\.NUM_CLASSES is 80, but dataset demo_\w+ has 8 classes; set it to 8"
    with pytest.raises(UserError, match=message):
        require_usable(config(name, "MODEL.ROI_HEADS.NUM_CLASSES", 80))


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ("", r"dataset \w+ is empty: .*/test\.txt lists no image"),
        ("7\n8\n9\n", r"test\.txt lists 3 images, but neither .*/7\.jpg nor 9\.jpg is there"),
        (None, r"dataset \w+ is not there: looked for .*/ImageSets/Main/test\.txt"),
    ],
)
def test_a_list_without_its_images_is_refused(
    tmp_path: Path, registered: list[str], listed: str | None, message: str
) -> None:
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    if listed is not None:
        (tmp_path / "ImageSets" / "Main" / "test.txt").write_text(listed)
    register_pascal_voc("listed", str(tmp_path), "test", 2007, demo.VOC_NAMES)
    registered.append("listed")
    with pytest.raises(UserError, match=message):
        require_usable(config("demo_voc_R_18_FPN", "DATASETS.TRAIN", ("listed",)))
