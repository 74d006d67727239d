"""Judgement of COCO annotations: what can be trained on or scored by, and what can be repaired.

The content of a JSON file is ``{"images": [...], "annotations": [...], "categories": [...]}``.
Keypoints and captions are passed over.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeGuard

from detection.masks import FLAT_MASK, are_numbers, area_of_mask, flaw_of_mask

Item = dict[str, Any]

LARGEST = 2**53  # of the whole numbers that every JSON reader keeps
SHOWN = 3  # examples of what cannot be used
IMAGE = ("id", "file_name", "height", "width")
ANNOTATION = ("id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation")
CATEGORY = ("id", "name")
FLAT_BOX = "a box of no width or no height"
# Left out of a training by Detectron2 itself. COCO's own train2017 has two such boxes.
LEFT_OUT_ANYWAY = (FLAT_BOX, FLAT_MASK)


class NotCOCOError(ValueError):
    """Content that is not in COCO's format."""


class Verdict(NamedTuple):
    """Result of looking through a file."""

    categories: Sequence[Sequence[Any]]  # id, after a repair, and name of each, by id
    objects: int  # that can be used, crowds not counted
    repairs: Sequence[str]  # each in a few words
    unusable: int  # images and annotations
    examples: Sequence[str]  # the first of these, and why
    run_lengths: str  # the first object with a mask in run lengths, if there is one
    changed: bool  # True if the file cannot be used as it is
    sha256: str = ""  # of the file
    images: int = 0  # that can be used
    annotated: int = 0  # of these, with an object that is no crowd

    @property
    def classes(self) -> list[str]:
        """Names of the categories, in the order of a model's classes."""
        return [name for _, name in self.categories]


def judge(content: Any, *, scored: bool, masks: bool) -> tuple[Verdict, Any]:
    """Look for what keeps the content of a COCO file from being used.

    Args:
        content: is left as it is.
        scored: True for a test set, whose scores need more than a training does.
        masks: True if objects need a mask and not a box alone.

    Returns:
        The verdict, and the content to use: for a test set, or where it cannot be used as it is,
        repaired, without what cannot be used, and with COCO's own fields alone.

    Raises:
        NotCOCOError: if it is no ground truth at all.
    """
    _require_format(content)
    judged = _Judged(content, scored, masks)
    verdict = Verdict(
        sorted((judged.labels[c["id"]], c["name"]) for c in content["categories"]),
        judged.objects,
        [f"{what}: {count:,}" for what, count in judged.repairs.items()],
        judged.unusable,
        judged.examples,
        judged.run_lengths,
        judged.changed,
        images=len(judged.images),
        annotated=len(judged.annotated),
    )
    return verdict, judged.content() if scored or judged.changed else content


def _require_format(content: Any) -> None:
    if not isinstance(content, dict):
        raise NotCOCOError("it is no JSON object")
    for key in ("images", "annotations", "categories"):
        items = content.get(key)
        if items is None or (items == [] and key != "annotations"):
            raise NotCOCOError(f'it has no "{key}"')
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise NotCOCOError(f'its "{key}" are no list of JSON objects')
    ids = set()
    for category in content["categories"]:
        key = category.get("id")
        if not _is_id(key) or key in ids or not isinstance(category.get("name"), str):
            raise NotCOCOError(f"a category lacks a name, or an id of its own: {category}")
        ids.add(key)


class _Judged:
    """Images first, then the annotations of those that can be used, then their ids."""

    def __init__(self, content: Mapping[str, Any], scored: bool, masks: bool) -> None:
        self.scored, self.masks = scored, masks
        self.repairs: Counter[str] = Counter()
        self.unusable = self.objects = 0
        self.annotated: set[Any] = set()  # ids of images with objects
        self.examples: list[str] = []
        self.run_lengths, self.changed = "", False
        self.unused: set[Any] = set()  # ids of images that are left out
        self.categories = content["categories"]
        self.images = self._usable_images(content["images"])
        self.numbers = self._numbers(self.images, "image ids made whole numbers")
        names = [category["id"] for category in self.categories]
        self.labels = self._numbers(names, "category ids made whole numbers")
        self.annotations = self._usable_annotations(content["annotations"])
        ids = [annotation.get("id") for annotation in self.annotations]
        # An id of 0 means "unmatched" inside COCO evaluators.
        if not _are_whole(ids, int(scored)) or len(set(ids)) < len(ids):
            self.repairs["annotations numbered anew"] += len(ids)
            self.annotations = [a | {"id": new} for new, a in enumerate(self.annotations, 1)]
        self.changed = self.changed or bool(self.repairs)

    def content(self) -> dict[str, list[Item]]:
        images, labels = self.numbers, self.labels
        return {
            "images": [_only(IMAGE, i, id=images[i["id"]]) for i in self.images.values()],
            "annotations": [
                _only(
                    ANNOTATION,
                    annotation,
                    image_id=images[annotation["image_id"]],
                    category_id=labels[annotation["category_id"]],
                )
                for annotation in self.annotations
            ],
            "categories": [_only(CATEGORY, c, id=labels[c["id"]]) for c in self.categories],
        }

    def _leave_out(self, named: str, why: str) -> None:
        self.unusable += 1
        if len(self.examples) < SHOWN:
            self.examples.append(f"{named}: {why}")
        self.changed = self.changed or self.scored or why not in LEFT_OUT_ANYWAY

    def _usable_images(self, images: Iterable[Item]) -> dict[Any, Item]:
        found: dict[Any, Item] = {}
        names: set[str] = set()
        for image in images:
            key, name = image.get("id"), image.get("file_name")
            why = _flaw_of_image(image)
            twin = None if why else found.get(key)
            if twin and twin["file_name"] == name:
                self.repairs["images listed twice, taken once"] += 1
                continue
            if twin:
                why = f"the id of {twin['file_name']}, too"
            elif not why and self.scored and name in names:
                why = "another id elsewhere in the list"
            if why:
                self._leave_out(f"image {key} ({name})", why)
                if _is_id(key):
                    self.unused.add(key)
                continue
            names.add(str(name))
            if not _are_whole((image["height"], image["width"]), 1):
                self.repairs["image sizes made whole numbers"] += 1
            found[key] = image | {side: int(image[side]) for side in ("height", "width")}
        for key in found.keys() & self.unused:
            self._leave_out(f"image {key} ({found[key]['file_name']})", "an id that is not its own")
        return {key: image for key, image in found.items() if key not in self.unused}

    def _numbers(self, ids: Collection[Any], what: str) -> dict[Any, int]:
        """A whole number for each id: itself, if all are."""
        if _are_whole(ids, 0):
            return {one: one for one in ids}
        self.repairs[what] += len(ids)
        return {one: new for new, one in enumerate(ids, 1)}

    def _usable_annotations(self, annotations: Sequence[Item]) -> list[Item]:
        found: list[Item] = []
        first: dict[Any, Item] = {}
        listed = {str(key) for key in self.images}
        # If images, and nothing else, were taken out of the list, others of them are still there.
        cut = any(str(annotation.get("image_id")) in listed for annotation in annotations)
        for annotation in annotations:
            key, image_id = annotation.get("id"), annotation.get("image_id")
            if _is_id(image_id) and image_id in self.unused:
                self._leave_out(f"annotation {key}", "its image is left out")
                continue
            if cut and _is_id(image_id) and str(image_id) not in listed:
                self.repairs["annotations of images that are not listed, left out"] += 1
                continue
            twin = first.setdefault(key, annotation) if _is_id(key) else annotation
            if twin is not annotation and twin == annotation:
                self.repairs["annotations listed twice, taken once"] += 1
                continue
            why = self._flaw(annotation)
            if why:
                image = self.images.get(image_id) if _is_id(image_id) else None
                of = f" of {image['file_name']}" if image else ""
                self._leave_out(f"annotation {key}{of}", why)
                continue
            found.append(self._repair(annotation))
        return found

    def _flaw(self, annotation: Item) -> str:
        """The flaw that keeps an annotation from being used; "" if there is none."""
        for key, known in (("image_id", self.images), ("category_id", self.labels)):
            one = annotation.get(key)
            if not _is_id(one) or one not in known:
                return f"the {key} {one!r}, which is none of the file's"
        if (annotation.get("iscrowd") or 0) not in (0, 1):
            return f"an iscrowd of {annotation['iscrowd']!r}, not 0 or 1"
        if (annotation.get("ignore") or 0) != 0:
            return 'the mark "ignore", which is not COCO\'s; make it iscrowd'
        why = _flaw_of_box(annotation.get("bbox"))
        if not why and self.masks:
            image = self.images[annotation["image_id"]]
            why = flaw_of_mask(annotation.get("segmentation"), image["height"], image["width"])
        return why

    def _repair(self, annotation: Item) -> Item:
        image = self.images[annotation["image_id"]]
        size = image["height"], image["width"]
        mask, area = annotation.get("segmentation") or None, annotation.get("area")
        if None in (annotation.get("iscrowd", 0), annotation.get("ignore", 0)):
            self.repairs["marks that are null, taken for 0"] += 1
            annotation = annotation | {"iscrowd": annotation.get("iscrowd") or 0}
        if mask and not self.masks and flaw_of_mask(mask, *size):
            self.repairs["masks that are none, and not asked for, left out"] += 1
            annotation = annotation | {"segmentation": (mask := None)}
        if self.scored and isinstance(mask, list) and any(len(polygon) < 6 for polygon in mask):
            self.repairs["masks with polygons of fewer than three points, these left out"] += 1
            mask = [polygon for polygon in mask if len(polygon) >= 6]
            annotation = annotation | {"segmentation": mask}
        if self.scored and not (_is_number(area) and area > 0):
            self.repairs["areas computed"] += 1
            area = (area_of_mask(mask, *size) if mask else 0) or math.prod(annotation["bbox"][2:])
            annotation = annotation | {"area": area}
        if not annotation.get("iscrowd"):
            self.objects += 1
            self.annotated.add(annotation["image_id"])
            if isinstance(mask, dict) and not self.run_lengths:
                self.run_lengths = f"annotation {annotation.get('id')} of {image['file_name']}"
        return annotation


def _only(fields: Sequence[str], item: Item, **changes: Any) -> Item:
    return {f: item[f] for f in fields if item.get(f) not in (None, [], {})} | changes


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and -math.inf < value < math.inf


def _is_id(value: Any) -> bool:
    return isinstance(value, str) or _is_number(value)


def _are_whole(ids: Iterable[Any], lowest: int) -> bool:
    return all(type(one) is int and lowest <= one <= LARGEST for one in ids)


def _flaw_of_image(image: Item) -> str:
    if not _is_id(image.get("id")):
        return "no id"
    if not isinstance(image.get("file_name"), str) or not image["file_name"]:
        return "no file_name"
    width, height = image.get("width"), image.get("height")
    if not all(_is_number(side) and side >= 1 and side % 1 == 0 for side in (width, height)):
        return f"the width {width!r} and the height {height!r}"
    return ""


def _flaw_of_box(box: Any) -> str:
    if not isinstance(box, Sequence) or len(box) != 4 or not are_numbers(box):
        return f"no box of four numbers, but {box!r}"
    width, height = box[2:]
    if min(width, height) < 0:
        return f"a box of width {width:g} and height {height:g}"
    return FLAT_BOX if min(width, height) == 0 else ""
