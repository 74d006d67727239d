"""A run folder says which job it was given to."""

import json
from pathlib import Path

import pytest

from launch.cluster.records import RECORD, Record

RUN = Record(
    "slurm", "123_4", 8, "/scratch/runs/arrays/a/123_4", "2024-05-01T12:00:00+00:00",
    identity={"lr": 0.02, "overrides": ["A", "1"]},
)  # fmt: skip


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    for record in (RUN, Record("local", "77", 1, "/runs/b/submitit/77", RUN.submitted, "12")):
        record.write(tmp_path / "run")
        assert Record.read(tmp_path / "run") == record
    assert [path.name for path in (tmp_path / "run").iterdir()] == [RECORD]


def test_what_a_later_version_adds_is_ignored(tmp_path: Path) -> None:
    RUN.write(tmp_path)
    saved = json.loads((tmp_path / RECORD).read_text())
    (tmp_path / RECORD).write_text(json.dumps(saved | {"colour": "blue"}))
    assert Record.read(tmp_path) == RUN


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "{}", '{"cluster": "slurm"}', "\xff\xfe"],
)
def test_what_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / RECORD).write_bytes(text.encode("latin-1"))
    assert Record.read(tmp_path) is None


@pytest.mark.parametrize(
    "wrong", [{"tasks": "8"}, {"job_id": 123}, {"after": None}, {"identity": "x"}]
)
def test_fields_of_another_type_are_none(tmp_path: Path, wrong: dict[str, object]) -> None:
    RUN.write(tmp_path)
    saved = json.loads((tmp_path / RECORD).read_text())
    (tmp_path / RECORD).write_text(json.dumps(saved | wrong))
    assert Record.read(tmp_path) is None


def test_a_folder_without_one_is_none(tmp_path: Path) -> None:
    assert Record.read(tmp_path) is None
    assert Record.read(tmp_path / "nowhere") is None
