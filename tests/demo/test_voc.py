"""The VOC folders: lists, XML and masks, against one another and the development kit's rules."""

import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demo import VOC_INDICES, VOC_NAMES, Counts
from demo.classes import VOC_CLASSES
from demo.voc import BORDER, palette

FIRST_COLOURS = [
    (0, 0, 0),
    (128, 0, 0),
    (0, 128, 0),
    (128, 128, 0),
    (0, 0, 128),
    (128, 0, 128),
    (0, 128, 128),
    (128, 128, 128),
    (64, 0, 0),
]  # as VOC's masks have them


def listed(root: Path, year: int, name: str) -> list[str]:
    return (root / f"VOC{year}" / "ImageSets" / f"{name}.txt").read_text().split()


def boxes(path: Path) -> list[tuple[str, int, int, int, int]]:
    found = []
    for item in ET.parse(path).getroot().iter("object"):
        x0, y0, x1, y1 = (
            int(item.findtext(f"bndbox/{corner}", ""))
            for corner in ("xmin", "ymin", "xmax", "ymax")
        )
        found.append((item.findtext("name", ""), x0, y0, x1, y1))
    return found


@pytest.mark.parametrize(
    ("year", "name", "count"),
    [
        (2007, "Main/trainval", "voc2007_trainval"),
        (2007, "Main/test", "voc2007_test"),
        (2012, "Segmentation/train", "voc2012_train"),
        (2012, "Segmentation/val", "voc2012_val"),
    ],
)
def test_lists(root: Path, counts: Counts, year: int, name: str, count: str) -> None:
    names = listed(root, year, name)
    assert len(names) == len(set(names)) == getattr(counts, count)


def test_the_splits_are_as_in_the_original(root: Path) -> None:
    assert not set(listed(root, 2007, "Main/trainval")) & set(listed(root, 2007, "Main/test"))
    train, val, augmented = (
        set(listed(root, 2012, f"Segmentation/{name}")) for name in ("train", "val", "train_aug")
    )
    assert train < augmented
    assert not augmented & val
    assert set(listed(root, 2012, "Main/trainval")) == augmented | val


@pytest.mark.parametrize("year", [2007, 2012])
def test_annotations(root: Path, year: int) -> None:
    paths = sorted((root / f"VOC{year}" / "Annotations").iterdir())
    assert paths
    for path in paths:
        xml = ET.parse(path).getroot()
        assert xml.findtext("filename") == f"{path.stem}.jpg"
        image = Image.open(path.parents[1] / "JPEGImages" / f"{path.stem}.jpg")
        size = tuple(int(xml.findtext(f"size/{side}", "")) for side in ("width", "height"))
        assert size == image.size
        assert boxes(path)
        for name, x0, y0, x1, y1 in boxes(path):
            assert name in VOC_NAMES and name in VOC_CLASSES
            assert 1 <= x0 <= x1 <= size[0] and 1 <= y0 <= y1 <= size[1]
        for item in xml.iter("object"):
            assert item.findtext("pose") == "Unspecified"
            assert {item.findtext("difficult"), item.findtext("truncated")} <= {"0", "1"}


def test_masks_hold_classes_and_border_only(root: Path) -> None:
    official = sorted((root / "VOC2012" / "SegmentationClass").iterdir())
    names = listed(root, 2012, "Segmentation/train") + listed(root, 2012, "Segmentation/val")
    assert [path.stem for path in official] == sorted(names)
    for path in official:
        mask, plain = (
            Image.open(one) for one in (path, root / "VOC2012" / "SegmentationClassAug" / path.name)
        )
        assert (mask.mode, plain.mode) == ("P", "L")
        values, plain_values = np.asarray(mask), np.asarray(plain)
        assert set(np.unique(values)) <= {0, BORDER, *VOC_INDICES}
        inside = values != BORDER
        np.testing.assert_array_equal(values[inside], plain_values[inside])
        assert 0.005 < (~inside).mean() < 0.35


def test_boxes_are_the_extents_of_the_masks(root: Path) -> None:
    paths = sorted((root / "VOC2012" / "SegmentationClassAug").iterdir())
    assert {path.stem for path in paths} == {
        path.stem for path in (root / "VOC2012" / "JPEGImages").iterdir()
    }
    for path in paths:
        mask = np.asarray(Image.open(path))
        assert set(np.unique(mask)) <= {0, *VOC_INDICES}
        corners: dict[str, list[tuple[int, int, int, int]]] = {}
        for name, *box in boxes(root / "VOC2012" / "Annotations" / f"{path.stem}.xml"):
            corners.setdefault(name, []).append((box[0], box[1], box[2], box[3]))
        assert {VOC_CLASSES.index(name) + 1 for name in corners} == set(np.unique(mask)) - {0}
        for name, of_class in corners.items():
            y, x = np.nonzero(mask == VOC_CLASSES.index(name) + 1)
            low, high = np.min(of_class, axis=0)[:2], np.max(of_class, axis=0)[2:]
            assert (x.min() + 1, y.min() + 1) == tuple(low)
            assert (x.max() + 1, y.max() + 1) == tuple(high)


def test_palette(root: Path) -> None:
    path = next((root / "VOC2012" / "SegmentationClass").iterdir())
    stored = np.reshape(Image.open(path).getpalette() or [], (-1, 3))
    np.testing.assert_array_equal(stored[:9], FIRST_COLOURS)
    np.testing.assert_array_equal(palette()[20], (0, 64, 128))  # tvmonitor
    np.testing.assert_array_equal(palette()[BORDER], (224, 224, 192))
