"""VOC 2012's segmentation sets and the embedded ones, as Detectron2 sees them."""

import logging
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

import segmentation
from common.errors import UserError
from detection.coco import require_usable
from detection.inspection import inspect_datasets
from tests.detection.conftest import registered
from tests.detection.helpers import config

__all__ = ["registered"]

VOC = (
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse "
    "motorbike person pottedplant sheep sofa train tvmonitor"
).split()


@pytest.mark.parametrize(
    ("split", "masks"),
    [("train", "SegmentationClass"), ("val", "SegmentationClass"),
     ("train_aug", "SegmentationClassAug")],
)  # fmt: skip
def test_the_embedded_sets(demo_root: Path, split: str, masks: str) -> None:
    root = demo_root / "VOC2012"
    listed = (root / "ImageSets" / "Segmentation" / f"{split}.txt").read_text().split()
    name = f"demo_voc_2012_{split}_sem_seg"
    assert DatasetCatalog.get(name) == [
        {
            "file_name": str(root / "JPEGImages" / f"{one}.jpg"),
            "sem_seg_file_name": str(root / masks / f"{one}.png"),
            "image_id": one,
        }
        for one in listed
    ]
    metadata = MetadataCatalog.get(name)
    assert (metadata.evaluator_type, metadata.ignore_label) == ("sem_seg", 255)
    assert metadata.stuff_classes == VOC


@pytest.mark.parametrize(("split", "images"), [("train", 45), ("val", 45), ("train_aug", 65)])
def test_real_voc_is_counted(
    real_data: Path, tmp_path: Path, split: str, images: int, caplog: pytest.LogCaptureFixture
) -> None:
    name = f"voc_2012_{split}_sem_seg"
    cfg = config("pascal_voc_R_50_FCN_30k", "DATASETS.TRAIN", (name,), "DATASETS.TEST", ())
    with caplog.at_level(logging.INFO, "detection"):
        inspect_datasets(cfg, tmp_path)
    assert caplog.messages == [f"dataset {name}: {images} images"]


def test_a_missing_mask_is_named(tmp_path: Path, registered: list[str]) -> None:
    for split in ("train", "train_aug"):
        (tmp_path / "ImageSets" / "Segmentation").mkdir(parents=True, exist_ok=True)
        (tmp_path / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("one\n")
    for folder in ("JPEGImages", "SegmentationClass"):
        (tmp_path / folder).mkdir()
    (tmp_path / "JPEGImages" / "one.jpg").touch()
    segmentation.datasets.register("no_mask", tmp_path, "train", "SegmentationClass")
    segmentation.datasets.register("no_masks", tmp_path, "train_aug", "SegmentationClassAug")
    registered += ["no_mask", "no_masks"]
    mask = tmp_path / "SegmentationClass" / "one.png"
    with pytest.raises(UserError, match=f"no_mask lacks 1 files of its 1 images, .* {mask}"):
        inspect_datasets(config("demo_voc_R_18_FCN", "DATASETS.TEST", ("no_mask",)), tmp_path)
    with pytest.raises(UserError, match=r"no_masks is not there: .*SegmentationClassAug, under"):
        require_usable(config("demo_voc_R_18_FCN", "DATASETS.TRAIN", ("no_masks",)))


def test_another_number_of_classes_is_refused() -> None:
    cfg = config("demo_voc_R_18_FCN", "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 20)
    with pytest.raises(UserError, match=r"SEM_SEG_HEAD\.NUM_CLASSES is 20, but .* has 21 classes"):
        require_usable(cfg)
