"""Run folders: --fresh, jobs that hold a folder, which runs count as finished."""

import errno
import fcntl
import os
import threading
from pathlib import Path

import pytest

from common import runs


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


def test_who_only_looks_whether_a_folder_is_held_does_not_get_a_job_refused(tmp_path: Path) -> None:
    (tmp_path / runs.LOCK).touch()
    look = open(tmp_path / runs.LOCK, "rb")  # noqa: SIM115
    fcntl.flock(look, fcntl.LOCK_SH)  # as launch.slurm.unfinished.is_held does, for a moment
    end = threading.Timer(0.2, look.close)
    end.start()
    lock = runs.hold(tmp_path)
    end.join()
    assert lock is not None
    lock.release()


def test_without_locks_a_folder_is_nobodys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    assert runs.hold(tmp_path / "a") is None and runs.hold(tmp_path / "a") is None
    with runs.set_aside(tmp_path / "a", wanted=True):
        assert not (tmp_path / "a").exists()


def test_a_run_that_was_set_aside_is_in_no_table(tmp_path: Path) -> None:
    kind = tmp_path / "runs" / "transfer"
    finished(kind / "a", kind="transfer", x=1)
    with runs.set_aside(kind / "a", wanted=True):
        finished(kind / "a", kind="transfer", x=2)
        found = runs.finished_runs(tmp_path, "transfer")
    assert found == [(kind / "a", {"kind": "transfer", "x": 2})]
