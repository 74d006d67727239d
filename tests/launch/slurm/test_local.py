"""A job on this machine, real and in processes of its own, is followed to its end."""

import _thread
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from common.errors import UserError
from launch.slurm import controller as controlling
from launch.slurm import submission
from launch.slurm.controller import Controller
from launch.slurm.executor import start_here
from launch.slurm.following import follow_local
from launch.slurm.job import Job
from launch.slurm.resources import Resources
from tests.launch.slurm.submissions import Config, job, record

Work = Callable[[Any, Path], Any]
Start = Callable[..., tuple[Any, Job]]
LEAVES = "trap 'touch left; exit 143' TERM; touch $0; while :; do sleep 0.02; done"
RANK = "SUBMITIT_LOCAL_GLOBALID"  # no function of this file's: jobs would import all of it
STAYS = "trap '' TERM INT; touch $0; while [ ! -e left ]; do sleep 0.02; done"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a job of one function on this machine; its handle, and the job."""
    handles = []

    def call(work: Work, tasks: int = 1, **options: Any) -> tuple[Any, Job]:
        one = Job("semi", work, Config(), tmp_path / "runs" / "semi" / "x", tmp_path, steps=10)
        options = {"gpus_per_node": 0, "tasks_per_node": tasks, "timeout_min": 1} | options
        handles.append(start_here(one, Resources("local", **options)))
        return handles[-1], one

    yield call
    for handle in handles:
        handle.cancel(check=False)


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.02)
    assert condition()


def test_it_is_shown_line_by_line_with_the_gpus_that_were_left_to_it(
    start: Start, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(config: Any, folder: Path) -> None:
        print(f"one\nGPUs {os.environ['CUDA_VISIBLE_DEVICES']}", flush=True)

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, MIG-2b,7")
    handle, one = start(work, gpus_per_node=2, tasks_per_node=2)
    follow_local(handle, one, [])
    assert capsys.readouterr().out.splitlines() == ["one", "GPUs 5,MIG-2b"]
    assert "GPUs 5,MIG-2b" in str(handle.task(1).stdout())
    assert record(one.folder).submitit == str(handle.paths.folder)


def test_a_failed_process_says_why_and_ends_the_others(
    start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(config: Any, folder: Path) -> None:
        if os.environ[RANK] == "1":
            raise UserError("the disk is full;\nmake room.")
        time.sleep(300)

    def work(config: Any, folder: Path) -> None:
        if os.environ[RANK] == "1":
            raise ValueError("rank 1 is dead")
        time.sleep(300)

    started = time.monotonic()
    with pytest.raises(UserError, match=r"^the disk is full;\nmake room\.$"):
        follow_local(*start(refuse, 2), [])
    with pytest.raises(UserError, match=r"job \d+ failed; its output is in .*the same command"):
        follow_local(*start(work, 2), [])
    assert time.monotonic() - started < 100  # and not 300
    assert "rank 1 is dead" in capsys.readouterr().err


def test_a_process_that_is_killed_is_named_and_ends_the_others(
    tmp_path: Path, start: Start
) -> None:
    def work(config: Any, folder: Path) -> None:
        (folder / os.environ[RANK]).write_text(f"{os.getpid()}")
        if os.environ[RANK] != "1":
            time.sleep(300)  # as in NCCL
        while len([*folder.glob("[0-2]")]) < 3:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGKILL)

    # As a script's shell does to commands that it starts in the background.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    handle, one = start(work, 3)
    signal.signal(signal.SIGINT, before)
    started = time.monotonic()
    with pytest.raises(UserError) as error:
        follow_local(handle, one, [])
    assert time.monotonic() - started < 100  # and not 300
    assert str(error.value) == (
        "process 1 of 3 was killed by SIGKILL, as when memory runs out; its output is in "
        f"{handle.task(1).paths.stderr}, and the same command resumes the run."
    )
    assert handle._process.returncode == 1
    for number in range(3):
        with pytest.raises(ProcessLookupError):
            os.kill(int((one.folder / f"{number}").read_text()), 0)


@pytest.mark.parametrize("whom", ["command", "process", "group"])
def test_sigterm_ends_all_of_it(
    start: Start, whom: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(config: Any, folder: Path) -> None:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        (folder / os.environ[RANK]).write_text(f"{os.getpid()}")
        try:
            time.sleep(300)
        finally:
            time.sleep(0.5)  # meanwhile the job hands its own on

    handle, one = start(work, 2)
    told: list[int] = []

    def tell() -> None:
        pids: list[str] = []
        while not all(pids) or len(pids) < 2:
            pids = [path.read_text() for path in sorted(one.folder.glob("[01]"))]
            time.sleep(0.05)
        if whom == "command":
            told.append(signal.SIGTERM)
        all_of = {"process": pids[1:], "group": [*pids, handle._process.pid]}
        for pid in all_of.get(whom, []):
            os.kill(int(pid), signal.SIGTERM)

    threading.Thread(target=tell, daemon=True).start()
    with pytest.raises(SystemExit) as ended:
        follow_local(handle, one, told)
    assert ended.value.code == handle._process.returncode == 143
    assert capsys.readouterr().err == "stopped; the same command resumes\n"


def test_ctrl_c_ends_it(start: Start) -> None:
    def work(config: Any, folder: Path) -> None:
        print("begun", flush=True)
        time.sleep(300)

    handle, one = start(work)

    def interrupt() -> None:
        wait_for(lambda: "begun" in (handle.stdout() or ""))
        _thread.interrupt_main()

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        follow_local(handle, one, [])
    wait_for(handle.done, 20)


def test_a_job_whose_output_nobody_reads_any_more_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def into_a_closed_pipe(*_: Any) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(submission, "follow_local", into_a_closed_pipe)
    with pytest.raises(BrokenPipeError):
        submission.launch([job(tmp_path)], Resources("local", gpus_per_node=0))
    given = record(job(tmp_path).folder)
    output = Path(given.submitit) / f"{given.job_id}_0_log.out"
    said = f"job {given.job_id} goes on, unread; kill {given.job_id} ends it, and its output is"
    assert capsys.readouterr().err == f"{said} {output}\n"


@pytest.fixture
def control(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str, str], Controller]]:
    """Run a job of two shells, which gets SIGTERM a little after both are there."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(controlling, "LEAVING_S", 0.5)

    def tell() -> None:
        wait_for(lambda: Path("0").exists() and Path("1").exists())
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGTERM)

    def call(*processes: str) -> Controller:
        for number, does in enumerate(processes):
            Path(f"does{number}").write_text(does)
        does = """sh -c 'exec sh -c "$(cat does$SUBMITIT_LOCAL_LOCALID)" $SUBMITIT_LOCAL_LOCALID'"""
        told = {"COMMAND": does, "NTASKS": "2", "TIMEOUT_S": "60", "SIGNAL_DELAY_S": "0"}
        for name, value in {**told, "WITH_SHELL": ""}.items():
            monkeypatch.setenv(f"SUBMITIT_LOCAL_{name}", value)
        monkeypatch.setenv("SUBMITIT_STDERR_TO_STDOUT", "")
        controller = Controller(tmp_path / "files")
        threading.Thread(target=tell, daemon=True).start()
        controller.run()
        return controller

    yield call
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_process_that_fails_because_another_has_left_does_not_count(control: Any) -> None:
    assert control(f"{STAYS}; exit 1", LEAVES).status == 143
    assert not [*Path("files").glob("*_error.txt")]


def test_the_main_process_has_its_time_to_save(control: Any) -> None:
    assert control(f"{STAYS}; sleep 1; touch saved; exit 143", LEAVES).status == 143
    assert Path("saved").exists()


def test_a_process_that_stays_when_the_main_one_has_ended_is_ended(control: Any) -> None:
    started = time.monotonic()
    assert control(LEAVES, f"{STAYS}; while :; do sleep 0.02; done").status == 143
    assert time.monotonic() - started < 20
