"""The Pascal VOC layout: XML boxes, palette masks with an ignored border, lists of images.

The shapes go by the names of real VOC classes (``demo.classes``), as VOC loaders know no others.
"""

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from demo import scenes
from demo.classes import VOC_INDICES, VOC_NAMES
from demo.scenes import Scene

BORDER = 255  # the value of mask pixels that evaluation ignores
DIFFICULT = 0.55  # an object of which less is seen is marked difficult


def write_2007(root: Path, trainval: int, test: int, seed: int) -> None:
    """Draw VOC2007's detection sets of so many images into ``root``."""
    names = [f"{number:06d}" for number in range(1, trainval + test + 1)]
    for name in names:
        _write_image(root, name, seed, segmented=False)
    _write_list(root, "Main/trainval", names[:trainval])
    _write_list(root, "Main/test", names[trainval:])


def write_2012(root: Path, train: int, val: int, augmented: int, seed: int) -> None:
    """Draw VOC2012's sets into ``root``: detection trainval, segmentation train, val, train_aug.

    ``SegmentationClass`` has masks with a border of the ``train`` and ``val`` images only;
    ``SegmentationClassAug`` has masks without one of these and of ``augmented`` images more, as
    those of SBD (Hariharan et al., ICCV 2011) that the ``train_aug`` list stands for.
    """
    for folder in ("SegmentationClass", "SegmentationClassAug"):
        (root / folder).mkdir(parents=True)
    names = [f"2008_{number:06d}" for number in range(1, train + val + augmented + 1)]
    official = names[: train + val]
    for name in names:
        scene = _write_image(root, name, seed, segmented=name in official)
        plain, bordered = masks(scene)
        Image.fromarray(plain).save(root / "SegmentationClassAug" / f"{name}.png")
        if name in official:
            image = Image.fromarray(bordered)
            image.putpalette(palette().tobytes())
            image.save(root / "SegmentationClass" / f"{name}.png")
    _write_list(root, "Main/trainval", names)
    _write_list(root, "Segmentation/train", names[:train])
    _write_list(root, "Segmentation/val", official[train:])
    _write_list(root, "Segmentation/train_aug", names[:train] + names[train + val :])


def masks(scene: Scene) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The VOC class index of each pixel (height, width), 0 for the ground; without and with 255 on
    both sides of every object's outline, two pixels wide in all."""
    owner = np.zeros(scene.image.shape[:2], np.uint8)
    for number, instance in enumerate(scene.instances, start=1):
        owner[instance.mask] = number
    plain = np.array([0, *(VOC_INDICES[one.label] for one in scene.instances)], np.uint8)[owner]
    edge = cv2.morphologyEx(owner, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    return plain, np.where(edge > 0, np.uint8(BORDER), plain)


def palette() -> NDArray[np.uint8]:
    """VOC's colours (256, 3): the bits of the index, in turn to red, green, blue, highest first."""
    index = np.arange(256, dtype=np.uint8)[:, None]
    bits = np.unpackbits(index, axis=1, count=9, bitorder="little")  # the ninth is 0
    return np.packbits(bits.reshape(256, 3, 3), axis=1)[:, 0]


def _write_image(root: Path, name: str, seed: int, segmented: bool) -> Scene:
    """Draw an image and write its XML, whose boxes count pixels from 1 and include the last one."""
    scene = scenes.several(scenes.generator(seed, root.name, name))
    scenes.save_jpeg(root / "JPEGImages" / f"{name}.jpg", scene)
    height, width = scene.image.shape[:2]
    fields = {
        "folder": root.name,
        "filename": f"{name}.jpg",
        "source": {"database": "embedded demo", "image": "drawn"},
        "size": {"width": width, "height": height, "depth": 3},
        "segmented": int(segmented),
    }
    xml = _element("annotation", fields)
    for instance in scene.instances:
        x0, y0, x1, y1 = instance.box
        fields = {
            "name": VOC_NAMES[instance.label],
            "pose": "Unspecified",
            "truncated": int(instance.truncated),
            "difficult": int(instance.visible < DIFFICULT),
            "bndbox": {"xmin": x0 + 1, "ymin": y0 + 1, "xmax": x1, "ymax": y1},
        }
        xml.append(_element("object", fields))
    ET.indent(xml, "\t")
    (root / "Annotations").mkdir(exist_ok=True)
    ET.ElementTree(xml).write(root / "Annotations" / f"{name}.xml")
    return scene


def _element(tag: str, content: object) -> ET.Element:
    """An XML element of a text, or of the elements in a dict."""
    element = ET.Element(tag)
    if isinstance(content, dict):
        element.extend(_element(*field) for field in content.items())
    else:
        element.text = str(content)
    return element


def _write_list(root: Path, name: str, images: Sequence[str]) -> None:
    path = root / "ImageSets" / f"{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{image}\n" for image in images))
