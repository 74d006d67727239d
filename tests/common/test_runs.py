"""Run folders: --fresh, jobs that hold a folder, which runs count as finished."""

from pathlib import Path

import pytest

from common import runs
from common.errors import UserError


def finished(folder: Path, **metrics: object) -> Path:
    folder.mkdir(parents=True)
    runs.finish(folder, metrics)
    return folder


def test_an_earlier_run_is_back_where_its_successor_wrote_nothing(tmp_path: Path) -> None:
    folder = finished(tmp_path / "a", x=1)
    with pytest.raises(ZeroDivisionError), runs.set_aside(folder, wanted=True):
        assert not folder.exists()
        raise ZeroDivisionError
    assert runs.is_finished(folder)
    with runs.set_aside(folder, wanted=True):
        folder.mkdir()
    assert not runs.is_finished(folder) and {p.name for p in tmp_path.iterdir()} == {"a"}


def test_a_folder_that_a_job_holds_is_not_set_aside(tmp_path: Path) -> None:
    folder = finished(tmp_path / "a")
    lock = runs.hold(folder)
    assert lock is not None
    with (
        lock,
        pytest.raises(UserError, match="in use by a job"),
        runs.set_aside(folder, wanted=True),
    ):
        pass
    assert runs.is_finished(folder)


def test_a_run_that_was_set_aside_is_in_no_table(tmp_path: Path) -> None:
    kind = tmp_path / "runs" / "transfer"
    finished(kind / "a", x=1)
    with runs.set_aside(kind / "a", wanted=True):
        finished(kind / "a", x=2)
        found = runs.finished_runs(tmp_path, "transfer")
    assert found == [(kind / "a", {"x": 2})]


def test_empty_folders_go_up_to_runs(tmp_path: Path) -> None:
    (tmp_path / "runs" / "transfer" / "a").mkdir(parents=True)
    (tmp_path / "runs" / "pretrain").mkdir()
    runs.delete_empty(tmp_path / "runs" / "transfer" / "a")
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"pretrain"}
    runs.delete_empty(tmp_path / "runs" / "pretrain")
    assert list(tmp_path.iterdir()) == []
