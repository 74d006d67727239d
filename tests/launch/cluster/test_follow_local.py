"""A job on this machine, real and in processes of its own, is followed to its end."""

import _thread
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import submitit
from submitit.core.utils import cloudpickle_dump

from common import runs
from common.errors import UserError
from launch.cluster.follow import follow
from launch.cluster.jobs import Job
from launch.cluster.outcome import error_of
from launch.cluster.records import Record
from launch.cluster.resources import Resources
from launch.cluster.submission import start_here
from tests.launch.cluster.submissions import Config

ROOT = Path(runs.__file__).parents[1]


def job_in(folder: Path) -> Job:
    return Job(print, Config(), folder / "run", folder, steps=10)


@pytest.fixture
def submit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Callable[[], Any], int], Any]]:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    handles = []

    def call(work: Callable[[], Any], tasks: int = 1) -> Any:
        executor = submitit.AutoExecutor(tmp_path / "submitit" / "%j", cluster="local")
        executor.update_parameters(tasks_per_node=tasks, timeout_min=1)
        handles.append(executor.submit(work))
        return handles[-1]

    yield call
    for handle in handles:
        handle.cancel(check=False)


def test_a_local_job_is_shown_line_by_line(
    tmp_path: Path, submit: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        print("one\ntwo", flush=True)

    assert follow(submit(work), job_in(tmp_path), cancel=True)
    assert capsys.readouterr().out.splitlines() == ["one", "two"]


def test_a_local_job_says_why_it_failed(tmp_path: Path, submit: Any) -> None:
    def work() -> None:
        raise UserError("the disk is full; make room.")

    with pytest.raises(UserError, match=r"^the disk is full; make room\.$"):
        follow(submit(work), job_in(tmp_path), cancel=True)


def test_a_dead_process_of_a_local_job_ends_the_others(
    tmp_path: Path, submit: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        if submitit.JobEnvironment().global_rank == 1:
            raise ValueError("rank 1 is dead")
        time.sleep(300)

    started = time.monotonic()
    with pytest.raises(UserError, match=r"job \d+ failed; its output is in .*the same command"):
        follow(submit(work, 2), job_in(tmp_path), cancel=True)
    assert time.monotonic() - started < 14
    assert "rank 1 is dead" in capsys.readouterr().err


def test_ctrl_c_ends_a_local_job(tmp_path: Path, submit: Any) -> None:
    def work() -> None:
        print("begun", flush=True)
        time.sleep(300)

    handle = submit(work)

    def interrupt() -> None:
        while "begun" not in (handle.stdout() or ""):
            time.sleep(0.05)
        _thread.interrupt_main()

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        follow(handle, job_in(tmp_path), cancel=True)
    until = time.monotonic() + 20
    while not handle.done() and time.monotonic() < until:
        time.sleep(0.05)
    assert handle.done()


def test_an_earlier_job_of_the_same_number_left_nothing_to_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = SimpleNamespace(pid=7, poll=lambda: None)
    monkeypatch.setattr("submitit.local.local.start_controller", lambda **_: process)
    here = Resources("local", gpus_per_node=0)
    earlier = start_here(job_in(tmp_path), here)
    cloudpickle_dump(("error", "UserError: the disk was full."), earlier.paths.result_pickle)
    handle = start_here(job_in(tmp_path), here)
    assert handle.job_id == earlier.job_id == "7"
    assert error_of(earlier) and error_of(handle) is None
    record = Record.read(tmp_path / "run")
    assert record is not None and record.submitit == str(handle.paths.folder)
