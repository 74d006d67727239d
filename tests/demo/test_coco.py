"""The COCO files, as pycocotools reads them and as its mask functions measure."""

from pathlib import Path

import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from demo import CLASSES, COCO_IDS, Counts


@pytest.fixture(scope="module", params=["train", "val"])
def split(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def coco(root: Path, split: str) -> COCO:
    return COCO(root / "coco" / "annotations" / f"instances_{split}2017.json")


def test_document(coco: COCO, counts: Counts, split: str) -> None:
    assert set(coco.dataset) == {"info", "licenses", "images", "annotations", "categories"}
    assert len(coco.getImgIds()) == getattr(counts, f"coco_{split}")
    assert [row["name"] for row in coco.loadCats(sorted(coco.getCatIds()))] == list(CLASSES)
    assert tuple(sorted(coco.getCatIds())) == COCO_IDS
    assert COCO_IDS[-1] > len(COCO_IDS)  # not contiguous
    assert len(coco.anns) == len(coco.dataset["annotations"])  # the ids are unique


def test_images(coco: COCO, root: Path, split: str) -> None:
    shapes = set()
    for row in coco.dataset["images"]:
        with Image.open(root / "coco" / f"{split}2017" / row["file_name"]) as image:
            assert (image.size, image.mode) == ((row["width"], row["height"]), "RGB")
            shapes.add(image.size)
        assert 1 <= len(coco.getAnnIds(row["id"])) <= 5
    assert len(shapes) > 4


def test_areas_and_boxes_agree_with_pycocotools(coco: COCO) -> None:
    for annotation in coco.dataset["annotations"]:
        rle = coco.annToRLE(annotation)
        assert annotation["iscrowd"] == 0
        assert annotation["area"] == coco_mask.area(rle)
        assert annotation["bbox"] == coco_mask.toBbox(rle).tolist()
        assert all(len(polygon) >= 6 for polygon in annotation["segmentation"])


def test_splits_share_no_id(root: Path) -> None:
    train, val = (
        COCO(root / "coco" / "annotations" / f"instances_{split}2017.json")
        for split in ("train", "val")
    )
    assert not set(train.getImgIds()) & set(val.getImgIds())
    assert not set(train.getAnnIds()) & set(val.getAnnIds())
