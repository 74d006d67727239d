"""The COCO layout: images of a split in a folder, all annotations in one JSON file.

Polygons follow the outlines of the masks, and are exact at every pixel's middle.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demo import scenes
from demo.classes import TABLE
from demo.scenes import Instance, Mask

Points = NDArray[np.float64]

FIRST_IMAGE_ID = {"train2017": 1000, "val2017": 500000}

# Directions in which an outline runs, clockwise on the screen: right, down, left, up.
STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))
# The outline passes at least sqrt(1/8) = 0.35 pixels from any pixel's middle. Corners moved by
# less leave every pixel on its side; 0.1 of it is for pycocotools, which rounds to 0.2 pixels.
TOLERANCE = 0.25


def write(root: Path, split: str, count: int, seed: int) -> None:
    """Draw ``count`` images into ``root/split``, and their file in ``root/annotations``."""
    folder = root / split
    folder.mkdir(parents=True)
    (root / "annotations").mkdir(exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(count):
        scene = scenes.several(scenes.generator(seed, "coco", split, index))
        image_id = FIRST_IMAGE_ID[split] + 3 * index
        name = f"{image_id:012d}.jpg"
        scenes.save_jpeg(folder / name, scene.image)
        height, width = scene.image.shape[:2]
        file = {"id": image_id, "file_name": name, "height": height, "width": width}
        images.append(file | {"license": 1, "date_captured": "2000-01-01 00:00:00"})
        for instance in scene.instances:
            ids = {"id": FIRST_IMAGE_ID[split] + len(annotations), "image_id": image_id}
            annotations.append(ids | annotation(instance))
    apache = {"name": "Apache License 2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"}
    document = {
        "info": {
            "description": "Textured shapes, drawn by a generator",
            "version": "1.0",
            "url": "",
            "year": 2000,
            "contributor": "",
            "date_created": "2000/01/01",
        },
        "licenses": [{"id": 1, **apache}],
        "images": images,
        "annotations": annotations,
        "categories": [
            {"id": row.coco_id, "name": row.name, "supercategory": "shape"} for row in TABLE
        ],
    }
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(document))


def annotation(instance: Instance) -> dict[str, Any]:
    """COCO's annotation of an object, without the ids of annotation and image.

    ``area`` is the number of visible pixels; ``bbox`` is (x, y, width, height) in pixels.
    """
    x0, y0, x1, y1 = instance.box
    return {
        "category_id": TABLE[instance.label].coco_id,
        "iscrowd": 0,
        "area": float(instance.mask.sum()),
        "bbox": [float(x0), float(y0), float(x1 - x0), float(y1 - y0)],
        "segmentation": polygons(instance.mask),
    }


def polygons(mask: Mask) -> list[list[float]]:
    """Polygons whose union has the pixels of a mask: flat lists x, y, x, y, … in pixels.

    (0, 0) is the top left corner of the top left pixel. A region with a hole is cut in two through
    the hole, for COCO's polygons have none.
    """
    loops = _outlines(mask)
    holes = [loop for loop in loops if _signed_area(loop) < 0]
    if holes:
        cut = int(holes[0][:, 0].mean())
        left, right = mask.copy(), mask.copy()
        left[:, cut:] = right[:, :cut] = False
        return polygons(left) + polygons(right)
    return [_simplify(loop).ravel().tolist() for loop in loops]


def _outlines(mask: Mask) -> list[Points]:
    """Closed outlines (n, 2) through the middles of the pixel sides where the mask ends.

    They run clockwise on the screen, and counter-clockwise about holes. Pixels that touch only at a
    corner are not joined.
    """
    padded = np.pad(mask, 1)
    inside = padded[1:-1, 1:-1]
    beyond = (padded[:-2, 1:-1], padded[1:-1, 2:], padded[2:, 1:-1], padded[1:-1, :-2])
    starts = ((0, 0), (1, 0), (1, 1), (0, 1))  # of the top, right, bottom and left side
    sides: dict[tuple[int, int, int], None] = {}
    for direction, (outside, (dx, dy)) in enumerate(zip(beyond, starts, strict=True)):
        for y, x in np.argwhere(inside & ~outside).tolist():
            sides[x + dx, y + dy, direction] = None
    loops = []
    while sides:
        x, y, direction = next(iter(sides))
        loop = []
        while (x, y, direction) in sides:
            del sides[x, y, direction]
            dx, dy = STEPS[direction]
            loop.append((x + dx / 2, y + dy / 2))
            x, y = x + dx, y + dy
            turns = ((direction + turn) % 4 for turn in (1, 0, 3))  # right, straight on, left
            direction = next((turn for turn in turns if (x, y, turn) in sides), direction)
        loops.append(np.array(loop))
    return loops


def _signed_area(loop: Points) -> float:
    """The area inside a closed outline, positive where it runs clockwise on the screen."""
    x, y = loop.T
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def _simplify(loop: Points) -> Points:
    """A closed outline with fewer corners, none of the others further off than the tolerance."""
    far = int(np.argmax(np.linalg.norm(loop - loop[0], axis=1)))
    there, back = loop[: far + 1], np.vstack([loop[far:], loop[:1]])
    return np.concatenate([_thin(there)[:-1], _thin(back)[:-1]])


def _thin(line: Points) -> Points:
    """Ramer-Douglas-Peucker simplification of an open line (n, 2)."""
    if len(line) < 3:
        return line
    dx, dy = line[-1] - line[0]
    offset = line[1:-1] - line[0]
    distance = np.abs(dx * offset[:, 1] - dy * offset[:, 0]) / np.hypot(dx, dy)
    worst = int(np.argmax(distance))
    if distance[worst] <= TOLERANCE:
        return line[[0, -1]]
    return np.concatenate([_thin(line[: worst + 2])[:-1], _thin(line[worst + 1 :])])
