"""A job that Slurm no longer knows is judged by its accounts, its results or its signs of life."""

import fcntl
import threading
import time

import pytest

from common import runs
from common.errors import UserError
from launch.cluster.follow import follow
from launch.cluster.jobs import Job
from tests.launch.cluster.played_job import (
    RUNNING,
    ends,
    fake,
    handle_of,
    job,
    moment,
    prints,
)
from tests.launch.cluster.test_slurm_states import FORGOTTEN, FakeSlurm, error, rows

__all__ = ["fake", "job"]  # the fixtures


def test_the_accounts_tell_the_end_of_a_forgotten_job(job: Job, fake: FakeSlurm) -> None:
    fake.answers("squeue", moment(RUNNING, prints(job, "one")), error(FORGOTTEN))
    fake.answers("sacct", rows("7|TIMEOUT"))
    with pytest.raises(UserError, match="timed out"):
        follow(handle_of(job), job)


def test_without_accounting_a_forgotten_job_is_judged_by_its_result(
    job: Job, fake: FakeSlurm
) -> None:
    fake.answers("squeue", RUNNING, moment(ends(job, 0, "success"), error(FORGOTTEN)))
    assert follow(handle_of(job), job)


def test_without_accounting_a_forgotten_job_may_have_failed(job: Job, fake: FakeSlurm) -> None:
    left = ends(job, 0, "error", "KeyError: 3")
    fake.answers("squeue", moment(RUNNING, prints(job, "one")), moment(left, error(FORGOTTEN)))
    with pytest.raises(UserError, match="job 7 failed; its output is in"):
        follow(handle_of(job), job)


def test_without_accounting_a_forgotten_finished_run_is_well(job: Job, fake: FakeSlurm) -> None:
    runs.finish(job.folder, {})
    fake.answers("squeue", error(FORGOTTEN))
    assert follow(handle_of(job), job)


def test_a_forgotten_job_is_followed_while_it_shows_life(
    job: Job, fake: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.answers("squeue", moment(RUNNING, prints(job, "one")), error(FORGOTTEN))
    lock = open(job.folder / runs.LOCK, "w")  # noqa: SIM115
    fcntl.flock(lock, fcntl.LOCK_EX)
    threading.Timer(1.5, lock.close).start()
    started = time.monotonic()
    with pytest.raises(UserError, match="left no result, and Slurm no longer knows it"):
        follow(handle_of(job), job)
    assert time.monotonic() - started > 1.9
