"""XML files of a VOC dataset that Detectron2 could not read."""

import xml.etree.ElementTree as ET
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from detectron2.data import MetadataCatalog

from detection.datasets import image_list

Reader = Callable[[str], object]

# Readers, as of Detectron2, of an image's texts, of an object's, and of an object's in a test set.
_BOX = ("bndbox/xmin", "bndbox/ymin", "bndbox/xmax", "bndbox/ymax")
_SIZE: Mapping[str, Reader] = dict.fromkeys(("size/height", "size/width"), int)
_READ: Mapping[str, Reader] = dict.fromkeys(_BOX, float)
_SCORED: Mapping[str, Reader] = {
    "pose": str,
    **dict.fromkeys(("truncated", "difficult", *_BOX), int),
}


def broken_annotation(name: str, scored: bool = False) -> str:
    """The first annotation of a VOC dataset that cannot be read, and why; "" if there is none.

    With ``scored`` Detectron2's evaluator is to read it, which asks for more than a training.
    """
    listed, metadata = image_list(name), MetadataCatalog.get(name)
    if listed is None or not metadata.get("dirname"):
        return ""
    for one in listed.read_text().split():
        path = Path(metadata.dirname) / "Annotations" / f"{one}.xml"
        wrong = _wrong_in(path, metadata.thing_classes, _SCORED if scored else _READ)
        if wrong:
            return f"{path}: {wrong}"
    return ""


def _wrong_in(path: Path, classes: Collection[str], read: Mapping[str, Reader]) -> str:
    try:
        root = ET.parse(path).getroot()
    except OSError as error:
        return error.strerror or str(error)
    except (ET.ParseError, ValueError, LookupError) as error:  # the latter two: its encoding
        return str(error)
    wrong = _wrong_text(root, _SIZE)
    if wrong:
        return f"it has {wrong}"
    for number, item in enumerate(root.findall("object"), 1):
        label = item.findtext("name")
        if label not in classes:
            return f"object {number} has the name {label!r}, which is no class of the dataset"
        wrong = _wrong_text(item, read)
        if wrong:
            return f"object {number} has {wrong}"
    return ""


def _wrong_text(element: ET.Element, read: Mapping[str, Reader]) -> str:
    for path, reader in read.items():
        tag, text = f"<{path.replace('/', '><')}>", element.findtext(path)
        if text is None:
            return f"no {tag}"
        try:
            reader(text)
        except ValueError:
            return f"{text!r} in {tag}, not a{' whole' * (reader is int)} number"
    return ""
