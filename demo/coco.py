"""The COCO layout: images of a split in a folder, all annotations in one JSON file."""

import json
from pathlib import Path
from typing import Any

from demo import polygons, sampling
from demo.classes import TABLE
from demo.scenes import Instance

FIRST_IMAGE_ID = {"train2017": 1000, "val2017": 500000}


def write(root: Path, split: str, count: int, seed: int) -> None:
    """Draw ``count`` images into ``root/split``, and their file in ``root/annotations``."""
    folder = root / split
    folder.mkdir(parents=True)
    (root / "annotations").mkdir(exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(count):
        scene = sampling.several(sampling.generator(seed, "coco", split, index))
        image_id = FIRST_IMAGE_ID[split] + 3 * index
        name = f"{image_id:012d}.jpg"
        sampling.save_jpeg(folder / name, scene.image)
        height, width = scene.image.shape[:2]
        images.append(
            {
                "id": image_id,
                "file_name": name,
                "height": height,
                "width": width,
                "license": 1,
                "date_captured": "2000-01-01 00:00:00",
            }
        )
        for instance in scene.instances:
            annotations.append(
                {
                    "id": FIRST_IMAGE_ID[split] + len(annotations),
                    "image_id": image_id,
                    **annotation(instance),
                }
            )
    document = {
        "info": {
            "description": "Textured shapes, drawn by a generator",
            "version": "1.0",
            "url": "",
            "year": 2000,
            "contributor": "",
            "date_created": "2000/01/01",
        },
        "licenses": [
            {
                "id": 1,
                "name": "Apache License 2.0",
                "url": "https://www.apache.org/licenses/LICENSE-2.0",
            }
        ],
        "images": images,
        "annotations": annotations,
        "categories": [
            {"id": row.coco_id, "name": row.name, "supercategory": "shape"} for row in TABLE
        ],
    }
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(document))


def annotation(instance: Instance) -> dict[str, Any]:
    """What COCO says of an object, but for the ids of annotation and image.

    ``area`` is the number of visible pixels; ``bbox`` is (x, y, width, height) in pixels.
    """
    x0, y0, x1, y1 = instance.box
    return {
        "category_id": TABLE[instance.label].coco_id,
        "iscrowd": 0,
        "area": float(instance.mask.sum()),
        "bbox": [float(x0), float(y0), float(x1 - x0), float(y1 - y0)],
        "segmentation": polygons.from_mask(instance.mask),
    }
