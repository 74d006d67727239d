"""One job at a time in a run folder, but for the successor of one that lost its node."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common import attempts, runs
from common.distributed import World
from common.errors import UserError
from common.running import running
from tests.processes import in_processes

HOLD = """
import sys, time
from pathlib import Path
from common.running import running
with running(Path(sys.argv[1]), {}, "cpu") as run:
    print(run.attempt.number, flush=True)
    while not run.preemption.should_save():
        time.sleep(0.05)
"""


def assert_refused(folder: Path) -> None:
    with (
        pytest.raises(UserError, match="in use by a job that is running"),
        running(folder, {}, "cpu"),
    ):
        pass


@pytest.fixture
def first_copy(tmp_path: Path) -> Any:
    """Starts a job of another process in ``tmp_path / "run"``, which goes on until it is ended."""
    started = []

    def start(**environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(tmp_path / "run")],
            env={**os.environ, **environment},
            cwd=Path(__file__).parent.parent.parent,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None and process.stdout.readline() == "1\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_folder_that_a_job_holds_is_refused(
    tmp_path: Path, first_copy: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    first_copy(SLURM_JOB_ID="7")
    monkeypatch.setattr(runs, "GLANCE_S", 0.2)
    assert_refused(tmp_path / "run")
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    monkeypatch.setattr(runs, "PATIENCE_S", 0.2)
    assert_refused(tmp_path / "run")
    assert attempts.count(tmp_path / "run") == 1


def test_the_same_slurm_job_takes_over_and_its_first_copy_stops(
    tmp_path: Path, first_copy: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = first_copy(SLURM_JOB_ID="7")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setattr(runs, "PATIENCE_S", 0.2)
    assert_refused(tmp_path / "run")  # a second command in the same allocation
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    with running(tmp_path / "run", {}, "cpu") as run:
        assert run.attempt.number == 2
        monkeypatch.delenv("SLURM_JOB_ID")
        monkeypatch.setattr(runs, "GLANCE_S", 0.2)
        with pytest.raises(UserError, match="in use by a job"):  # the second copy's now
            runs.hold(tmp_path / "run")
        started = time.monotonic()
        assert first.wait(20) == 1 and time.monotonic() - started < 10
    with running(tmp_path / "run", {}, "cpu") as run:
        assert run.attempt.restarts == 2


def test_a_copy_of_a_run_that_was_begun_afresh_stops(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with running(folder, {}, "cpu") as old:
        shutil.rmtree(folder)  # as from another node, to which this one is lost
        with running(folder, {}, "cpu") as new:
            assert (old.attempt.number, new.attempt.number) == (1, 1)
            new.finish({"score": 1})
            with pytest.raises(SystemExit):
                old.finish({"score": 2})
    assert json.loads((folder / runs.FINAL).read_text()) == {"score": 1}


def _refused_everywhere(world: World, folder: Path) -> None:
    assert_refused(folder)


def test_all_processes_are_refused_together(tmp_path: Path, first_copy: Callable[..., Any]) -> None:
    first_copy()
    in_processes(_refused_everywhere, tmp_path / "run")
