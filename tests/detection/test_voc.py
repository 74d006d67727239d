"""Broken XML files of a VOC dataset are named."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from detectron2.evaluation.pascal_voc_evaluation import parse_rec

from common.errors import UserError
from detection.inspection import inspect_datasets
from tests.detection.small_datasets import cfg_of, cut

Change = Callable[[Path], None]


def _replace(old: str, new: str) -> Change:
    def change(path: Path) -> None:
        path.write_text(re.sub(old, new, path.read_text(), count=1))

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (cut, "[a-z ]+: line"),
        (Path.unlink, "No such file"),
        (_replace("(?s)<bndbox>.*?</bndbox>", ""), "object 1 has no <bndbox><xmin>"),
        (_replace("<xmin>", "<xmin>a"), r"object 1 has 'a\d+' in <bndbox><xmin>, not a number"),
        (_replace("<name>.*</name>", "<name>a</name>"), "object 1 has the name 'a', which is no"),
        (_replace("<width>.*</width>", ""), "it has no <size><width>"),
    ],
)
def test_a_broken_annotation_file_is_named(
    tmp_path: Path, voc: str, change: Change, message: str
) -> None:
    path = max((tmp_path / "VOC2007" / "Annotations").iterdir())
    change(path)
    wanted = f"dataset {voc} cannot be read: {path}: {message}"
    with pytest.raises(UserError, match=wanted) as error:
        inspect_datasets(cfg_of(voc), tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_replace("<difficult>.*</difficult>", ""), "no <difficult>"),
        (_replace("<pose>.*</pose>", ""), "no <pose>"),
        (_replace("</xmax>", ".5</xmax>"), r"'\d+\.5' in <bndbox><xmax>, not a whole number"),
    ],
)
def test_what_detectron2_could_not_score_by_is_refused_in_a_test_set_alone(
    tmp_path: Path, voc: str, change: Change, message: str
) -> None:
    path = max((tmp_path / "VOC2007" / "Annotations").iterdir())
    change(path)
    with pytest.raises((AttributeError, TypeError, ValueError)):
        parse_rec(str(path))  # Detectron2's own, after the last iteration
    inspect_datasets(cfg_of(voc), tmp_path)
    wanted = f"dataset {voc} cannot be scored by: {path}: object 1 has {message}"
    with pytest.raises(UserError, match=wanted):
        inspect_datasets(cfg_of("demo_voc_2007_trainval", voc), tmp_path)
