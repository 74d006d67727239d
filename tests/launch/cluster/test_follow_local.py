"""A job on this machine, real and in processes of its own, is followed to its end."""

import _thread
import os
import signal
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
from common.preemption import handle_signals
from launch.cluster.executor import local_executor
from launch.cluster.follow import follow
from launch.cluster.jobs import Job
from launch.cluster.outcome import error_of
from launch.cluster.records import Record
from launch.cluster.resources import Resources
from launch.cluster.submission import start_here
from tests.launch.cluster.submissions import Config

ROOT = Path(runs.__file__).parents[1]


def job_in(folder: Path) -> Job:
    return Job("semi", print, Config(), folder / "run", folder, steps=10)


@pytest.fixture
def submit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Callable[[], Any], int], Any]]:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    handles = []

    def call(work: Callable[[], Any], tasks: int = 1) -> Any:
        here = Resources("local", gpus_per_node=0, tasks_per_node=tasks, timeout_min=1)
        handles.append(local_executor("work", tmp_path / "submitit" / "%j", here).submit(work))
        return handles[-1]

    yield call
    for handle in handles:
        handle.cancel(check=False)


def test_a_local_job_is_shown_line_by_line(
    tmp_path: Path, submit: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        print("one\ntwo", flush=True)

    assert follow(submit(work), job_in(tmp_path))
    assert capsys.readouterr().out.splitlines() == ["one", "two"]


def test_a_local_job_says_why_it_failed(tmp_path: Path, submit: Any) -> None:
    def work() -> None:
        raise UserError("the disk is full; make room.")

    with pytest.raises(UserError, match=r"^the disk is full; make room\.$"):
        follow(submit(work), job_in(tmp_path))


def test_a_dead_process_of_a_local_job_ends_the_others(
    tmp_path: Path, submit: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        if submitit.JobEnvironment().global_rank == 1:
            raise ValueError("rank 1 is dead")
        time.sleep(300)

    started = time.monotonic()
    with pytest.raises(UserError, match=r"job \d+ failed; its output is in .*the same command"):
        follow(submit(work, 2), job_in(tmp_path))
    assert time.monotonic() - started < 14
    assert "rank 1 is dead" in capsys.readouterr().err


@pytest.mark.parametrize("in_background", [False, True])
def test_a_process_that_is_killed_is_named_and_ends_the_others(
    tmp_path: Path, submit: Any, in_background: bool
) -> None:
    def work() -> None:
        rank = submitit.JobEnvironment().global_rank
        (tmp_path / f"{rank}").write_text(f"{os.getpid()}")
        if rank != 1:
            time.sleep(300)  # as in NCCL
        while len([*tmp_path.glob("[0-2]")]) < 3:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGKILL)

    before = signal.getsignal(signal.SIGINT)
    if in_background:  # what a script's shell does to what it starts there
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    handle = submit(work, 3)
    signal.signal(signal.SIGINT, before)
    started = time.monotonic()
    with pytest.raises(UserError) as error:
        follow(handle, job_in(tmp_path))
    assert time.monotonic() - started < 30
    assert str(error.value) == (
        "process 1 of 3 was killed by SIGKILL, as when memory runs out; its output is in "
        f"{handle.task(1).paths.stderr}, and the same command resumes the run."
    )
    assert handle._process.returncode == 1
    for rank in range(3):
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / f"{rank}").read_text()), 0)


@pytest.mark.parametrize("whom", ["command", "job", "process", "group"])
def test_sigterm_ends_all_of_a_local_job(
    tmp_path: Path, submit: Any, whom: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        os.environ["RANK"] = f"{submitit.JobEnvironment().global_rank}"
        with handle_signals():
            (tmp_path / os.environ["RANK"]).write_text(f"{os.getpid()}")
            try:
                time.sleep(300)
            finally:
                time.sleep(0.5)  # meanwhile the job hands its own on

    handle = submit(work, 2)
    told: list[int] = []

    def tell() -> None:
        pids: list[str] = []
        while not all(pids) or len(pids) < 2:
            pids = [path.read_text() for path in sorted(tmp_path.glob("[01]"))]
            time.sleep(0.05)
        if whom == "command":
            told.append(signal.SIGTERM)
        job = [handle._process.pid]
        all_of = {"job": job, "process": pids[1:], "group": [*pids, *job]}
        for pid in all_of.get(whom, []):
            os.kill(int(pid), signal.SIGTERM)

    threading.Thread(target=tell, daemon=True).start()
    with pytest.raises(SystemExit) as ended:
        follow(handle, job_in(tmp_path), told)
    assert ended.value.code == handle._process.returncode == 143
    assert capsys.readouterr().err == "stopped; the same command resumes\n"


def test_a_local_job_has_the_gpus_that_were_left_to_it(
    tmp_path: Path, submit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work() -> None:
        print("GPUs", os.environ["CUDA_VISIBLE_DEVICES"], submitit.JobEnvironment().num_tasks)

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,MIG-2b,7")
    two = Resources("local", gpus_per_node=2)
    handle = local_executor("work", tmp_path / "%j", two).submit(work)
    assert follow(handle, job_in(tmp_path))
    assert "GPUs 5,MIG-2b 2" in str(handle.task(1).stdout())


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
        follow(handle, job_in(tmp_path))
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
