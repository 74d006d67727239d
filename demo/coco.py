"""The COCO layout: images of a split in a folder, all annotations in one JSON file.

Polygons follow the outlines of the masks, and are exact at every pixel's middle.
"""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from demo import scenes
from demo.classes import TABLE
from demo.scenes import Mask

FIRST_ID = {"train2017": 1000, "val2017": 500000}  # of images and of annotations
FINE = 5  # sub-pixels a pixel and axis of the outlines: pycocotools' own
# The outline, through the middles of sub-pixels, passes 0.4 pixels from any pixel's middle. Corners
# moved by less leave every pixel on its side; the rest is for pycocotools, which rounds to 0.2.
TOLERANCE = 0.25


def write(root: Path, split: str, count: int, seed: int) -> None:
    """Draw ``count`` images into ``root/split``, and their file in ``root/annotations``."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(count):
        scene = scenes.several(scenes.generator(seed, "coco", split, index))
        image_id = FIRST_ID[split] + 3 * index
        name = f"{image_id:012d}.jpg"
        scenes.save_jpeg(root / split / name, scene)
        height, width = scene.image.shape[:2]
        images.append({"id": image_id, "file_name": name, "height": height, "width": width})
        for instance in scene.instances:
            x0, y0, x1, y1 = map(float, instance.box)
            annotations.append(
                {
                    "id": FIRST_ID[split] + len(annotations),
                    "image_id": image_id,
                    "category_id": TABLE[instance.label].coco_id,
                    "iscrowd": 0,
                    "area": float(instance.mask.sum()),
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "segmentation": polygons(instance.mask),
                }
            )
    document = {
        "info": {"description": "Textured shapes, drawn by a generator", "version": "2.0"},
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": [
            {"id": row.coco_id, "name": row.name, "supercategory": "texture"} for row in TABLE
        ],
    }
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(document))


def polygons(mask: Mask) -> list[list[float]]:
    """Polygons whose union has the pixels of a mask: flat lists x, y, x, y, … in pixels.

    (0, 0) is the top left corner of the top left pixel. A region with a hole is cut in two through
    the hole, for COCO's polygons have none.
    """
    fine = mask.astype(np.uint8).repeat(FINE, axis=0).repeat(FINE, axis=1)
    contours, relations = cv2.findContours(fine, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    for contour, (*_, outer) in zip(contours, relations[0] if contours else (), strict=True):
        if outer >= 0:  # this one is a hole's
            cut = int(contour[:, 0, 0].mean() / FINE)
            left, right = mask.copy(), mask.copy()
            left[:, cut:] = right[:, :cut] = False
            return polygons(left) + polygons(right)
    simple = (cv2.approxPolyDP(contour, TOLERANCE * FINE, True) for contour in contours)
    return [((corners[:, 0] + 0.5) / FINE).ravel().tolist() for corners in simple]
