"""A job on Slurm that a test plays: what it prints, how it ends, and what Slurm says meanwhile.

squeue and sacct play a part, and each of their answers is also a moment of the job.
"""

from pathlib import Path
from typing import Any

import pytest
from submitit.core.utils import cloudpickle_dump

from launch.cluster import follow as module
from launch.cluster import outcome, slurm, watches
from launch.cluster.follow import attach
from launch.cluster.jobs import Job
from launch.cluster.records import Record
from tests.launch.cluster.test_slurm_states import FakeSlurm, fake, rows

__all__ = ["fake"]  # the fixture
TRACE = 'Traceback:\n  File "x.py"\ncommon.errors.UserError: the disk is full; make room.\n'
RUNNING, COMPLETED = rows("7|RUNNING|None"), rows("7|COMPLETED|None")
PENDING, FAILED = rows("7|PENDING|BeginTime"), rows("7|FAILED|NonZeroExitCode")


@pytest.fixture
def job(tmp_path: Path, fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> Job:
    monkeypatch.setattr(slurm, "ASK_S", (0.05, 0.05))
    monkeypatch.setattr(module, "POLL_S", 0.02)
    monkeypatch.setattr(outcome, "RESULT_S", 0.1)
    monkeypatch.setattr(watches, "FORGOTTEN_S", 0.5)
    record = Record("slurm", "7", 2, str(tmp_path / "run" / "submitit" / "7"), "")
    record.write(tmp_path / "run")
    (tmp_path / "run" / "submitit" / "7").mkdir(parents=True)
    return Job("semi", print, None, tmp_path / "run", tmp_path, steps=10)


def handle_of(job: Job) -> Any:
    record = Record.read(job.folder)
    assert record is not None
    return attach(record, job.folder)


def file(job: Job, name: str) -> Path:
    return job.folder / "submitit" / "7" / name


def prints(job: Job, *lines: str) -> str:
    """A moment in which the main process prints."""
    return "\n".join(f"echo '{line}' >> {file(job, '7_0_log.out')}" for line in lines)


def ends(job: Job, rank: int, outcome: str, value: str | None = None) -> str:
    """A moment in which a process leaves its result."""
    made, path = file(job, f"{rank}-{outcome}"), file(job, f"7_{rank}_result.pkl")
    cloudpickle_dump((outcome, value), made)
    return f"cp {made} {path}"


def moment(*parts: str) -> str:
    return "\n".join(parts)
