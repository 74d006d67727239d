"""The Pascal VOC layout: XML boxes, palette masks with an ignored border, lists of images.

The shapes go by the names of real VOC classes (``demo.classes``), as VOC loaders know no others.
"""

import xml.etree.ElementTree as ET
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from demo import scenes
from demo.classes import TABLE, VOC_INDICES
from demo.scenes import Instance, Scene

BORDER = 255  # the value of mask pixels that evaluation ignores
DIFFICULT = 0.55  # an object of which less is seen is marked difficult


def write_2007(root: Path, trainval: int, test: int, seed: int) -> None:
    """Draw VOC2007's detection sets of so many images into ``root``."""
    names = [f"{index:06d}" for index in range(1, trainval + test + 1)]
    _make_folders(root, "JPEGImages Annotations ImageSets/Main")
    for name in names:
        _write_image(root, name, scenes.several(scenes.generator(seed, root.name, name)), False)
    _write_list(root, "Main/trainval", names[:trainval])
    _write_list(root, "Main/test", names[trainval:])


def write_2012(root: Path, train: int, val: int, augmented: int, seed: int) -> None:
    """Draw VOC2012's sets into ``root``: detection trainval, segmentation train, val, train_aug.

    ``SegmentationClass`` has masks with a border of the ``train`` and ``val`` images only;
    ``SegmentationClassAug`` has masks without one of these and of ``augmented`` images more, as
    those of SBD (Hariharan et al., ICCV 2011) that the ``train_aug`` list stands for.
    """
    _make_folders(root, "JPEGImages Annotations ImageSets/Main ImageSets/Segmentation")
    _make_folders(root, "SegmentationClass SegmentationClassAug")
    names = [f"2008_{index:06d}" for index in range(1, train + val + augmented + 1)]
    official = names[: train + val]
    for name in names:
        scene = scenes.several(scenes.generator(seed, root.name, name))
        _write_image(root, name, scene, name in official)
        Image.fromarray(class_mask(scene)).save(root / "SegmentationClassAug" / f"{name}.png")
        if name in official:
            mask = Image.fromarray(with_border(scene))
            mask.putpalette(palette().ravel().tolist())
            mask.save(root / "SegmentationClass" / f"{name}.png")
    _write_list(root, "Main/trainval", names)
    _write_list(root, "Segmentation/train", names[:train])
    _write_list(root, "Segmentation/val", official[train:])
    _write_list(root, "Segmentation/train_aug", names[:train] + names[train + val :])


def class_mask(scene: Scene) -> NDArray[np.uint8]:
    """The VOC class index of each pixel (height, width), 0 for the ground."""
    mask = np.zeros(scene.image.shape[:2], np.uint8)
    for instance in scene.instances:
        mask[instance.mask] = VOC_INDICES[instance.label]
    return mask


def with_border(scene: Scene) -> NDArray[np.uint8]:
    """``class_mask`` with 255 on both sides of every object's outline, two pixels wide in all."""
    owner = np.zeros(scene.image.shape[:2], np.uint8)
    for number, instance in enumerate(scene.instances, start=1):
        owner[instance.mask] = number
    edge = cv2.morphologyEx(owner, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    return np.where(edge > 0, np.uint8(BORDER), class_mask(scene))


def palette() -> NDArray[np.uint8]:
    """VOC's colours (256, 3): the bits of the index, in turn to red, green, blue, highest first."""
    colours = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        value = np.arange(256) >> 3 * bit
        for channel in range(3):
            colours[:, channel] |= ((value >> channel & 1) << 7 - bit).astype(np.uint8)
    return colours


def annotation(root: Path, name: str, scene: Scene, segmented: bool) -> ET.Element:
    """The XML of an image; boxes count pixels from 1 and include the last one."""
    xml = ET.Element("annotation")
    height, width = scene.image.shape[:2]
    _fill(xml, {"folder": root.name, "filename": f"{name}.jpg"})
    _fill(ET.SubElement(xml, "source"), {"database": "embedded demo", "image": "drawn"})
    _fill(ET.SubElement(xml, "size"), {"width": width, "height": height, "depth": 3})
    _fill(xml, {"segmented": int(segmented)})
    for instance in scene.instances:
        _add_object(ET.SubElement(xml, "object"), instance)
    return xml


def _add_object(xml: ET.Element, instance: Instance) -> None:
    x0, y0, x1, y1 = instance.box
    _fill(
        xml,
        {
            "name": TABLE[instance.label].voc_name,
            "pose": "Unspecified",
            "truncated": int(instance.truncated),
            "difficult": int(instance.visible < DIFFICULT),
        },
    )
    _fill(ET.SubElement(xml, "bndbox"), {"xmin": x0 + 1, "ymin": y0 + 1, "xmax": x1, "ymax": y1})


def _fill(parent: ET.Element, values: dict[str, str | int]) -> None:
    for tag, value in values.items():
        ET.SubElement(parent, tag).text = str(value)


def _make_folders(root: Path, names: str) -> None:
    for name in names.split():
        (root / name).mkdir(parents=True)


def _write_image(root: Path, name: str, scene: Scene, segmented: bool) -> None:
    scenes.save_jpeg(root / "JPEGImages" / f"{name}.jpg", scene.image)
    xml = annotation(root, name, scene, segmented)
    ET.indent(xml, "\t")
    ET.ElementTree(xml).write(root / "Annotations" / f"{name}.xml")


def _write_list(root: Path, name: str, names: Iterable[str]) -> None:
    (root / "ImageSets" / f"{name}.txt").write_text("".join(f"{one}\n" for one in names))
