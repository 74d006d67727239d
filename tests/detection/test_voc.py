"""What is wrong in a VOC dataset's XML files is named."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from detectron2.evaluation.pascal_voc_evaluation import parse_rec

from common.errors import UserError
from detection.inspection import inspect_datasets
from tests.detection.small_datasets import cfg_of, cut, voc

Change = Callable[[Path], None]


def _rename_a_class(path: Path) -> None:
    path.write_text(path.read_text().replace("<name>", "<name>new"))


@pytest.mark.parametrize("change", [cut, Path.unlink, _rename_a_class])
def test_a_broken_annotation_file_is_named(
    demo_root: Path, tmp_path: Path, registered: list[str], change: Change
) -> None:
    name = voc(demo_root, tmp_path, registered)
    path = max((tmp_path / "VOC2007" / "Annotations").iterdir())
    change(path)
    with pytest.raises(UserError, match=f"dataset {name} cannot be read: {path}: ") as error:
        inspect_datasets(cfg_of(name))
    assert "\n" not in str(error.value)


def _replace(old: str, new: str) -> Change:
    def change(path: Path) -> None:
        path.write_text(re.sub(old, new, path.read_text(), count=1))

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_replace("(?s)<bndbox>.*?</bndbox>", ""), "object 1 has no <bndbox><xmin>"),
        (_replace("<ymax>.*</ymax>", ""), "object 1 has no <bndbox><ymax>"),
        (_replace("<xmin>", "<xmin>a"), r"object 1 has 'a\d+' in <bndbox><xmin>, not a number"),
        (_replace("<name>.*</name>", "<name>a</name>"), "object 1 has the name 'a', which is no"),
        (_replace("<name>.*</name>", ""), "object 1 has the name None, which is no class"),
        (_replace("<width>.*</width>", ""), "it has no <size><width>"),
    ],
)
def test_what_an_annotation_file_lacks_is_named(
    demo_root: Path, tmp_path: Path, registered: list[str], change: Change, message: str
) -> None:
    name = voc(demo_root, tmp_path, registered)
    path = max((tmp_path / "VOC2007" / "Annotations").iterdir())
    change(path)
    with pytest.raises(UserError, match=f"dataset {name} cannot be read: {path}: {message}"):
        inspect_datasets(cfg_of(name))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_replace("<difficult>.*</difficult>", ""), "no <difficult>"),
        (_replace("<difficult>.*</difficult>", "<difficult/>"), "'' in <difficult>, not a whole"),
        (_replace("<truncated>.*</truncated>", ""), "no <truncated>"),
        (_replace("<pose>.*</pose>", ""), "no <pose>"),
        (_replace("</xmax>", ".5</xmax>"), r"'\d+\.5' in <bndbox><xmax>, not a whole number"),
    ],
)
def test_what_detectron2_could_not_score_by_is_refused_in_a_test_set_alone(
    demo_root: Path, tmp_path: Path, registered: list[str], change: Change, message: str
) -> None:
    name = voc(demo_root, tmp_path, registered)
    path = max((tmp_path / "VOC2007" / "Annotations").iterdir())
    change(path)
    with pytest.raises((AttributeError, TypeError, ValueError)):
        parse_rec(str(path))  # Detectron2's own, after the last iteration
    inspect_datasets(cfg_of(name))
    wanted = f"dataset {name} cannot be scored by: {path}: object 1 has {message}"
    with pytest.raises(UserError, match=wanted):
        inspect_datasets(cfg_of("demo_voc_2007_trainval", name))
