"""Pictures of test images: ground truth and predictions, drawn by Detectron2's Visualizer."""

import base64
import io
from typing import Any

import matplotlib
import numpy as np
from detectron2.data import Metadata
from detectron2.structures import BoxMode
from detectron2.utils.visualizer import ColorMode, Visualizer
from hotcoco import mask as rle
from numpy.typing import NDArray
from PIL import Image

from launch.reports.predictions import GroundTruth
from segmentation.masks import IGNORE, read_mask

SIDE = 320  # pixels of a picture's longer side
SCORE = 0.5  # predictions below are not drawn, unless there is no other
FEW = 3  # that are drawn where none has this score
Pixels = NDArray[np.uint8]


def choose(found: GroundTruth, count: int) -> list[Any]:
    """Ids of images with objects, evenly spaced: the same ones for all runs."""
    annotated = {a["image_id"] for a in found.annotations.get("annotations", ())}
    ids = [i for i in found.images if i in annotated or i in found.annotations]
    return (
        [ids[i] for i in sorted({*np.linspace(0, len(ids) - 1, count).astype(int)})] if ids else []
    )


def truth(found: GroundTruth, image_id: Any) -> Image.Image:
    """The ground truth of an image: its objects, or the classes of its pixels."""
    if image_id in found.annotations:
        mask = read_mask(found.annotations[image_id], len(found.classes), IGNORE)
        return _classes(found, image_id, mask)
    objects_there = [a for a in found.annotations["annotations"] if a["image_id"] == image_id]
    return objects(found, image_id, objects_there)


def predicted(found: GroundTruth, image_id: Any, rows: list[dict[str, Any]]) -> Image.Image:
    """Draw the predictions of an image: objects worth showing, or classes of pixels."""
    if image_id not in found.annotations:
        return objects(found, image_id, worth_showing(rows))
    height, width = _read(found, image_id).shape[:2]
    mask: Pixels = np.full((height, width), IGNORE, np.uint8)
    for row in rows:
        mask[rle.decode(row["segmentation"]) > 0] = row["category_id"]
    return _classes(found, image_id, mask)


def objects(found: GroundTruth, image_id: Any, shown: list[dict[str, Any]]) -> Image.Image:
    """Boxes, and masks where there are any, over an image; annotations as in COCO's format."""
    pixels = _read(found, image_id)
    height, width = pixels.shape[:2]
    names = {c["id"]: c["name"] for c in found.annotations["categories"]}
    order = [*names]
    codes = [one.get("segmentation") for one in shown]
    with matplotlib.rc_context({"text.parse_math": False}):  # a class's name may have a $
        visualizer = _visualizer(pixels)
        visualizer.overlay_instances(
            boxes=[BoxMode.convert(o["bbox"], BoxMode.XYWH_ABS, BoxMode.XYXY_ABS) for o in shown],
            masks=[_bits(code, height, width) for code in codes] if codes and all(codes) else None,
            labels=[f"{names[one['category_id']]}{_score(one)}" for one in shown],
            assigned_colors=[_color(order.index(one["category_id"]) + 1) for one in shown],
            alpha=0.4,
        )
        return _small(visualizer)


def worth_showing(predictions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The predictions of an image whose score is ``SCORE`` or more, or else the best few."""
    ranked = sorted(predictions, key=lambda one: -one["score"])
    return [one for one in ranked if one["score"] >= SCORE] or ranked[:FEW]


def _classes(found: GroundTruth, image_id: Any, mask: Pixels) -> Image.Image:
    mask = np.where(mask == 0, IGNORE, mask)  # the background is left as it is
    colors = [tuple(255 * c for c in _color(i)) for i in range(len(found.classes))]
    metadata = Metadata(stuff_classes=found.classes, stuff_colors=colors)
    visualizer = _visualizer(_read(found, image_id), metadata)
    visualizer.draw_sem_seg(mask, area_threshold=None, alpha=0.55)
    return _small(visualizer)


def _read(found: GroundTruth, image_id: Any) -> Pixels:
    with Image.open(found.images[image_id]) as image:
        return np.asarray(image.convert("RGB"))


def _visualizer(pixels: Pixels, metadata: Metadata | None = None) -> Visualizer:
    """At twice the size at which a picture is kept, with letters to be read there."""
    scale = 2 * SIDE / max(pixels.shape[:2])
    visualizer = Visualizer(pixels, metadata or Metadata(), scale, ColorMode.IMAGE)
    visualizer._default_font_size = 17 / scale  # its own suits pictures of a screen's size
    return visualizer


def _small(visualizer: Visualizer) -> Image.Image:
    image = Image.fromarray(visualizer.output.get_image())
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return image


def _bits(code: Any, height: int, width: int) -> Pixels:
    """The mask of COCO's polygons or run-length code."""
    codes = rle.frPyObjects(code, height, width) if not _is_packed(code) else code
    bits: Pixels = rle.decode(rle.merge(codes) if isinstance(codes, list) else codes)
    return np.ascontiguousarray(bits)


def _is_packed(code: Any) -> bool:
    return isinstance(code, dict) and isinstance(code["counts"], str | bytes)


def _score(one: dict[str, Any]) -> str:
    return f" {100 * one['score']:.0f}%" if "score" in one else ""


def _color(label: int) -> tuple[float, float, float]:
    """VOC's colour of a class: its bits, dealt to red, green and blue."""
    channels = [0, 0, 0]
    for bit in range(8):
        for channel in range(3):
            channels[channel] |= (label >> (3 * bit + channel) & 1) << (7 - bit)
    red, green, blue = (value / 255 for value in channels)
    return red, green, blue


def data_uri(image: Image.Image) -> str:
    """An image as the content of a page."""
    buffer = io.BytesIO()
    image.save(buffer, "webp", quality=68, method=6)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
