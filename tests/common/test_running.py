"""One job at a time in a run folder, but for the successor of one that lost its node."""

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

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


def test_one_job_holds_a_folder_until_slurm_starts_it_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    monkeypatch.setattr(runs, "GLANCE_S", 0.2)
    monkeypatch.setattr(runs, "PATIENCE_S", 0.2)
    with ExitStack() as stack:
        first = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(folder)],
            env={**os.environ, "SLURM_JOB_ID": "7"},
            cwd=Path(__file__).parent.parent.parent,
            stdout=subprocess.PIPE,
            text=True,
        )
        stack.enter_context(first)
        stack.callback(first.kill)
        assert first.stdout is not None and first.stdout.readline() == "1\n"
        assert_refused(folder)
        for job in ("8", "7"):  # another job, and a second command in the same allocation
            monkeypatch.setenv("SLURM_JOB_ID", job)
            assert_refused(folder)
        assert attempts.count(folder) == 1
        monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
        with running(folder, {}, "cpu") as run:
            assert run.attempt.number == 2
            monkeypatch.delenv("SLURM_JOB_ID")
            with pytest.raises(UserError, match="in use by a job"):  # the second copy's now
                runs.hold(folder)
            started = time.monotonic()
            assert first.wait(20) == 1 and time.monotonic() - started < 10
    with running(folder, {}, "cpu") as run:
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


def test_all_processes_are_refused_together(tmp_path: Path) -> None:
    lock = runs.hold(tmp_path)
    assert lock is not None
    with lock:
        in_processes(_refused_everywhere, tmp_path)
