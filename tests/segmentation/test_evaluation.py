"""mIoU against NumPy, on masks of our own and on VOC's."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torch.nn import functional as F

import segmentation  # noqa: F401  registers the data sets
from common.errors import UserError
from detection.evaluation import evaluate, kind_of
from segmentation import datasets
from segmentation.evaluation import SEGMENTATION
from segmentation.masks import CLASSES
from tests.detection.conftest import registered
from tests.detection.helpers import config

__all__ = ["registered"]

Masks = dict[str, NDArray[np.uint8]]
NAMES = ["mIoU", "fwIoU", *(f"IoU-{name}" for name in CLASSES), "mACC", "pACC"]


class Oracle(nn.Module):
    """A network that knows its answer for each file."""

    def __init__(self, answers: Masks) -> None:
        super().__init__()
        self.answers = answers

    def forward(self, inputs: list[dict[str, Any]]) -> list[dict[str, torch.Tensor]]:
        labels = (torch.from_numpy(self.answers[x["image_id"]]).long() for x in inputs)
        return [{"sem_seg": F.one_hot(one, 21).permute(2, 0, 1).float()} for one in labels]


def reference(truth: Masks, answers: Masks) -> dict[str, float]:
    """All metrics in percent, class by class over the pixels that are not ignored."""
    labels = np.concatenate([truth[k].ravel() for k in truth])
    found = np.concatenate([answers[k].ravel() for k in truth])[labels != 255]
    labels = labels[labels != 255]
    right, of_class, seen = (
        np.array([np.sum(one == c) for c in range(21)])
        for one in (np.where(found == labels, labels, 99), labels, found)
    )
    with np.errstate(invalid="ignore"):
        iou, accuracy = right / (of_class + seen - right), right / of_class
    iou = np.where(of_class > 0, iou, np.nan)
    metrics = {
        "mIoU": np.nanmean(iou),  # classes in the ground truth
        "fwIoU": np.nansum(iou * of_class) / of_class.sum(),
        "mACC": np.nanmean(accuracy),
        "pACC": right.sum() / of_class.sum(),
    } | {f"IoU-{name}": value for name, value in zip(CLASSES, iou, strict=True)}
    return {name: 100 * float(value) for name, value in metrics.items()}


def seg_config(name: str) -> Any:
    return config("demo_voc_R_18_FCN", "DATASETS.TEST", (name,), "DATALOADER.NUM_WORKERS", 0)


@pytest.fixture
def made(tmp_path: Path, registered: list[str]) -> tuple[str, Masks]:
    """Three masks of random blocks with ignored pixels, of 6 of the classes."""
    root, name = tmp_path / "VOC2012", f"made_{tmp_path.name}"
    generator = np.random.default_rng(0)
    for folder in ("ImageSets/Segmentation", "JPEGImages", "SegmentationClass"):
        (root / folder).mkdir(parents=True)
    truth: Masks = {}
    for image, shape in (("a", (4, 5)), ("b", (6, 3)), ("c", (5, 5))):
        blocks = generator.choice(np.array([0, 1, 4, 9, 15, 20, 255], np.uint8), shape)
        truth[image] = np.kron(blocks, np.ones((8, 8), np.uint8))
        Image.fromarray(truth[image]).save(root / "SegmentationClass" / f"{image}.png")
        height, width = truth[image].shape
        Image.new("RGB", (width, height)).save(root / "JPEGImages" / f"{image}.jpg")
    (root / "ImageSets" / "Segmentation" / "val.txt").write_text("a\nb\nc\n")
    datasets.register(name, root, "val", "SegmentationClass")
    registered.append(name)
    return name, truth


def perturbed(truth: Masks, share: float = 0.3) -> Masks:
    """Labels of which a share is drawn at random from some classes."""
    generator = np.random.default_rng(1)
    return {
        image: np.where(
            (generator.random(mask.shape) < share) | (mask == 255),
            generator.integers(0, 16, mask.shape),
            mask,
        )
        for image, mask in truth.items()
    }


def assert_equal(found: dict[str, float], wanted: dict[str, float]) -> None:
    assert list(found) == NAMES and found.keys() == wanted.keys()
    for name in NAMES:
        assert found[name] == pytest.approx(wanted[name], abs=1e-9, nan_ok=True), name


def test_it_equals_numpy(made: tuple[str, Masks], tmp_path: Path) -> None:
    name, truth = made
    answers = perturbed(truth)
    found = evaluate(seg_config(name), SEGMENTATION, Oracle(answers), str(tmp_path / "inference"))
    assert_equal(found, reference(truth, answers))
    assert 20 < found["mIoU"] < 70
    assert np.isnan(found["IoU-train"])  # neither there nor found
    predicted = np.unique(np.concatenate([answer.ravel() for answer in answers.values()]))
    assert 2 in predicted and np.isnan(found["IoU-bicycle"])  # found, but not there


def test_a_class_that_is_only_predicted_does_not_change_the_mean(
    made: tuple[str, Masks], tmp_path: Path
) -> None:
    """Computed by hand: of 6 classes, all pixels of one are taken for a class that is not there."""
    name, truth = made
    answers = {image: np.where(mask == 20, 19, mask) for image, mask in truth.items()}
    answers = {image: np.where(mask == 255, 0, mask) for image, mask in answers.items()}
    found = evaluate(seg_config(name), SEGMENTATION, Oracle(answers), str(tmp_path))
    assert found["mIoU"] == pytest.approx(100 * 5 / 6) and np.isnan(found["IoU-train"])


def test_a_case_computed_by_hand(made: tuple[str, Masks], tmp_path: Path) -> None:
    """All background: its IoU is its share of the pixels that count; the others' is 0."""
    name, truth = made
    labels = np.concatenate([mask.ravel() for mask in truth.values()])
    share = 100 * np.sum(labels == 0) / np.sum(labels != 255)
    nothing = {image: np.zeros_like(mask) for image, mask in truth.items()}
    found = evaluate(seg_config(name), SEGMENTATION, Oracle(nothing), str(tmp_path))
    assert found["IoU-background"] == found["pACC"] == pytest.approx(share)
    assert found["mIoU"] == pytest.approx(share / 6) and found["mACC"] == pytest.approx(100 / 6)


def read_truth(name: str) -> Masks:
    return {r["image_id"]: np.array(Image.open(r["sem_seg_file_name"]))
            for r in DatasetCatalog.get(name)}  # fmt: skip


def test_it_equals_numpy_on_voc(real_data: Path, tmp_path: Path) -> None:
    cfg = config("pascal_voc_R_50_FCN_30k", "DATALOADER.NUM_WORKERS", 0)
    truth = read_truth(cfg.DATASETS.TEST[0])
    assert len(truth) == 45
    answers = perturbed(truth, share=0.1)
    found = evaluate(cfg, SEGMENTATION, Oracle(answers), str(tmp_path))
    assert_equal(found, reference(truth, answers))
    assert np.isfinite(list(found.values())).all()  # the slice has all classes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda mask: mask.write_text("nothing"), r"mask .*/b\.png: .*; mend it"),
        (lambda mask: Image.new("L", (5, 5)).save(mask), r"b\.png is not of its image's size"),
        (Path.unlink, r"mask .*/b\.png: .*No such file"),
    ],
)
def test_an_unreadable_mask_is_named(
    made: tuple[str, Masks], tmp_path: Path, change: Any, message: str
) -> None:
    name, truth = made
    change(tmp_path / "VOC2012" / "SegmentationClass" / "b.png")
    with pytest.raises(UserError, match=message):
        evaluate(seg_config(name), SEGMENTATION, Oracle(perturbed(truth)), str(tmp_path))


def test_another_ignored_value_is_refused(tmp_path: Path) -> None:
    cfg = seg_config("demo_voc_2012_val_sem_seg")
    assert kind_of(cfg, [SEGMENTATION]) is SEGMENTATION
    cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE = 254
    with pytest.raises(UserError, match=r"IGNORE_VALUE is 254, but .* by 255"):
        evaluate(cfg, SEGMENTATION, Oracle({}), str(tmp_path))
