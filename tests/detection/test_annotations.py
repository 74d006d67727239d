"""COCO annotations are judged, repaired and left out."""

import copy
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as rle

from detection.annotations import NotCOCOError, judge
from detection.masks import flaw_of_mask

Change = Callable[[dict[str, Any]], object]

SQUARE = [1, 1, 5, 1, 5, 5, 1, 5]


def content() -> dict[str, Any]:
    """Two images of 12 x 10 pixels with two squares each, of 4 x 4 pixels."""
    pairs = itertools.product((1, 2), (3, 7))
    return {
        "info": {"year": 2026},
        "images": [
            {"id": i, "file_name": f"{i}.jpg", "height": 10, "width": 12, "license": 1}
            for i in (1, 2)
        ],
        "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
        "annotations": [
            {"id": n, "image_id": image, "category_id": label, "bbox": [1, 1, 4, 4], "area": 16.0,
             "iscrowd": 0, "segmentation": [SQUARE], "score": None}
            for n, (image, label) in enumerate(pairs, 1)
        ],
    }  # fmt: skip


def first(**values: Any) -> Change:
    """The first annotation with other values."""
    return lambda it: it["annotations"][0].update(values)


def every(key: str, value: Callable[[int], Any]) -> Change:
    """All annotations with another value, by their number from 0."""
    return lambda it: [a.update({key: value(n)}) for n, a in enumerate(it["annotations"])]


def without(key: str, items: str = "annotations") -> Change:
    return lambda it: [a.pop(key) for a in it[items]]


def images(new: Callable[[int], Any], key: str = "id") -> Change:
    """Images with another id (in their annotations, too) or other value, by their old id."""

    def change(it: dict[str, Any]) -> None:
        for image in it["images"]:
            image[key] = new(image["id"])
        for annotation in it["annotations"] if key == "id" else ():
            annotation["image_id"] = new(annotation["image_id"])

    return change


def changed(change: Change) -> dict[str, Any]:
    it = content()
    change(it)
    return it


def twice(items: str) -> Change:
    return lambda it: it[items].append(copy.deepcopy(it[items][0]))


@pytest.mark.parametrize("area", [None, "16", math.nan, 0, "absent"])
def test_an_area_that_is_none_is_the_masks_or_the_boxs(area: Any) -> None:
    it = content()
    triangle = [1.0, 1.0, 9.0, 1.0, 1.0, 9.0]
    it["annotations"][0] |= {"area": area, "segmentation": [triangle], "bbox": [1, 1, 8, 8]}
    counts = [5, 10, 105]
    it["annotations"][1] |= {"area": area, "segmentation": {"size": [10, 12], "counts": counts}}
    del it["annotations"][2]["segmentation"]
    it["annotations"][2] |= {"area": area, "bbox": [0, 0, 2.5, 4]}
    if area == "absent":
        for annotation in it["annotations"][:3]:
            del annotation["area"]
    found, repaired = judge(it, scored=True, masks=False)
    assert found.repairs == ["areas computed: 3"]
    triangles = int(rle.area(rle.merge(rle.frPyObjects([triangle], 10, 12))))
    assert [a["area"] for a in repaired["annotations"]] == [triangles, 10, 10, 16]
    found, same = judge(it, scored=False, masks=False)  # a training reads no areas
    assert not found.changed and same is it


def compressed(mask: Any) -> dict[str, Any]:
    found = rle.encode(np.asfortranarray(mask, np.uint8))
    return {"size": found["size"], "counts": found["counts"].decode()}


BOX = "no box of four numbers, but"
POLYGON = "a polygon that is no list of x and y in turn, in pixels"
NO_MASK = "no mask, for which MODEL.MASK_ON asks (False: boxes alone)"
NEITHER = "a mask that is neither a list of polygons nor run lengths"
UNREADABLE = "a mask whose run lengths cannot be read"
UNUSABLE: list[tuple[dict[str, Any], str]] = [
    ({"bbox": [50, 50, -20, -10]}, "a box of width -20 and height -10"),
    ({"bbox": [1, 1, 0, 4]}, "a box of no width or no height"),
    ({"bbox": [1, 1, math.nan, 4]}, f"{BOX} [1, 1, nan, 4]"),
    ({"bbox": [-1e300, 1, 4, 4]}, f"{BOX} [-1e+300, 1, 4, 4]"),
    ({"bbox": ["1", 1, 4, 4]}, f"{BOX} ['1', 1, 4, 4]"),
    ({"bbox": [1, 1, 4]}, f"{BOX} [1, 1, 4]"),
    ({"bbox": "1234"}, f"{BOX} '1234'"),
    ({"bbox": None}, f"{BOX} None"),
    ({"image_id": "1"}, "the image_id '1', which is none of the file's"),
    ({"image_id": [1]}, "the image_id [1], which is none of the file's"),
    ({"category_id": 4}, "the category_id 4, which is none of the file's"),
    ({"iscrowd": "0"}, "an iscrowd of '0', not 0 or 1"),
    ({"ignore": 1}, 'the mark "ignore", which is not COCO\'s; make it iscrowd'),
    ({"segmentation": None}, NO_MASK),
    ({"segmentation": []}, NO_MASK),
    ({"segmentation": SQUARE}, NEITHER),
    ({"segmentation": "mask"}, NEITHER),
    ({"segmentation": [SQUARE[:-1]]}, POLYGON),
    ({"segmentation": [[*SQUARE[:-1], "5"]]}, POLYGON),
    ({"segmentation": [[*SQUARE[:-1], math.nan]]}, POLYGON),
    ({"segmentation": [[[1, 1], [5, 1], [5, 5]]]}, POLYGON),
    ({"segmentation": [[*SQUARE[:-1], 1e12]]}, POLYGON),
    ({"segmentation": [SQUARE[:4]]}, "a mask of polygons with fewer than three points"),
    (
        {"segmentation": {"size": [12, 10], "counts": [120]}},
        "a mask of the size [12, 10], in an image of [10, 12]",
    ),
    (
        {"segmentation": {"size": [10, 12], "counts": [5, 6, 7]}},
        "a mask of 18 pixels, in an image of 10 x 12",
    ),
    ({"segmentation": {"size": [10, 12], "counts": [130, -10]}}, UNREADABLE),
    ({"segmentation": {"size": [10, 12], "counts": "\x01"}}, UNREADABLE),
    ({"segmentation": {"size": [10, 12]}}, UNREADABLE),
]


@pytest.mark.parametrize(("change", "why"), UNUSABLE)
@pytest.mark.parametrize("scored", [True, False])
def test_an_annotation_that_cannot_be_used_is_left_out(
    change: dict[str, Any], why: str, scored: bool
) -> None:
    found, kept = judge(changed(first(**change)), scored=scored, masks=True)
    of = "" if "image_id" in why else " of 1.jpg"
    assert (found.unusable, found.examples, found.objects) == (1, [f"annotation 1{of}: {why}"], 3)
    # Detectron2 leaves objects without an area out of a training by itself.
    assert found.changed is (scored or not any(w in why for w in ("no width", "three points")))
    if found.changed:
        assert [a["id"] for a in kept["annotations"]] == [2, 3, 4]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"id": None}, "image None (1.jpg): no id"),
        ({"file_name": 5}, "image 1 (5): no file_name"),
        ({"width": None}, "image 1 (1.jpg): the width None and the height 10"),
        ({"width": -1, "height": -1}, "image 1 (1.jpg): the width -1 and the height -1"),
        ({"height": "10"}, "image 1 (1.jpg): the width 12 and the height '10'"),
        ({"height": 10.5}, "image 1 (1.jpg): the width 12 and the height 10.5"),
    ],
)
def test_an_image_that_cannot_be_used_is_left_out_with_its_annotations(
    change: dict[str, Any], why: str
) -> None:
    for scored in (True, False):
        it = changed(lambda it: it["images"][0].update(change))
        found, kept = judge(it, scored=scored, masks=True)
        assert found.examples[0] == why and found.objects == 2 and found.changed
        assert [image["id"] for image in kept["images"]] == [2]
        assert {annotation["image_id"] for annotation in kept["annotations"]} == {2}


def test_annotations_of_images_that_are_not_listed_are_left_out() -> None:
    it = changed(lambda it: it["images"].pop(0))
    for scored in (True, False):
        found, kept = judge(it, scored=scored, masks=True)
        assert found.repairs == ["annotations of images that are not listed, left out: 2"]
        assert not found.unusable and found.objects == 2
        assert {annotation["image_id"] for annotation in kept["annotations"]} == {2}


def test_images_with_one_id_or_one_file() -> None:
    one_id = changed(lambda it: it["images"][1].update(id=1))
    found, kept = judge(one_id, scored=False, masks=True)
    assert found.examples[0] == "image 1 (2.jpg): the id of 1.jpg, too" and not kept["images"]
    assert found.unusable == 2 + 4 and not found.objects
    one_file = changed(lambda it: it["images"][1].update(file_name="1.jpg"))
    found, _ = judge(one_file, scored=True, masks=True)
    assert found.examples[0] == "image 2 (1.jpg): another id elsewhere in the list"
    assert not judge(one_file, scored=False, masks=True)[0].changed  # seen twice as often


LACKING = "a category lacks a name, or an id of its own:"


@pytest.mark.parametrize(
    ("it", "why"),
    [
        ([], "it is no JSON object"),
        (changed(lambda it: it.pop("annotations")), 'it has no "annotations"'),
        (changed(lambda it: it.update(images=[])), 'it has no "images"'),
        (changed(lambda it: it.update(images={})), 'its "images" are no list of JSON objects'),
        (changed(lambda it: it["categories"][1].update(id=3)), f"{LACKING} {{'id': 3, 'name':"),
        (changed(lambda it: it["categories"][1].pop("name")), f"{LACKING} {{'id': 7}}"),
    ],
)
def test_other_content_is_refused(it: Any, why: str) -> None:
    with pytest.raises(NotCOCOError, match=why):
        judge(it, scored=True, masks=True)


def test_run_lengths_are_read_as_pycocotools_writes_them() -> None:
    generator = np.random.default_rng(0)
    for share in (0, 0.01, 0.5, 0.99, 1):
        mask = generator.random((97, 61)) < share
        text = compressed(mask)
        assert flaw_of_mask(text, 97, 61) == ""
        assert flaw_of_mask(text | {"counts": text["counts"].encode()}, 97, 61) == ""
        flat = mask.T.ravel()
        edges = np.flatnonzero(np.diff(flat)) + 1
        runs = np.diff([*([0] * int(flat[0])), 0, *edges, flat.size]).tolist()
        assert flaw_of_mask({"size": [97, 61], "counts": runs}, 97, 61) == ""
        for cut in range(1, len(text["counts"])):
            short = text | {"counts": text["counts"][:-cut]}
            assert flaw_of_mask(short, 97, 61)
        it = changed(first(segmentation=compressed(mask), area=None))
        for image in it["images"]:
            image |= {"height": 97, "width": 61}
        _, repaired = judge(it, scored=True, masks=True)
        assert repaired["annotations"][0]["area"] == (mask.sum() or 16)
