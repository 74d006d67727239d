"""Signals of a cluster: heard by one process, answered by all after the same step."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import Process
from pathlib import Path
from types import FrameType

import pytest
import torch
import torch.distributed as dist

from common import attempts, preemption
from common.distributed import World
from common.errors import UserError
from common.preemption import Preemption, handle_signals
from common.run_checkpoints import RunCheckpoints
from tests.alone import ALONE, begin
from tests.processes import in_processes


class Requeued(BaseException):
    """The end that submitit's handler brings to the process."""


def submitits_handler(signum: int, frame: FrameType | None) -> None:
    raise Requeued


@pytest.fixture
def on_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    _as_on_slurm(monkeypatch)


def _as_on_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    monkeypatch.setattr(preemption, "LOOK_S", 0)
    for number in (signal.SIGUSR2, signal.SIGTERM):
        signal.signal(number, submitits_handler)


@pytest.fixture(autouse=True)
def handlers() -> object:
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR2, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_job_saves_and_is_requeued(on_slurm: None, tmp_path: Path) -> None:
    with pytest.raises(Requeued), handle_signals() as told, told.deferred():
        assert not told.should_save()
        os.kill(os.getpid(), signal.SIGUSR2)
        assert told.should_save()
        told.exit_if_preempted()
    assert signal.getsignal(signal.SIGUSR2) is submitits_handler


def test_with_nothing_to_save_a_job_leaves_at_once(on_slurm: None) -> None:
    with handle_signals() as told:
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Requeued):
            os.kill(os.getpid(), signal.SIGUSR2)
    with handle_signals() as told, told.deferred():
        os.kill(os.getpid(), signal.SIGUSR2)
        with pytest.raises(Requeued), told.immediate():
            raise AssertionError
    with handle_signals() as told, told.deferred(), pytest.raises(Requeued), told.immediate():
        os.kill(os.getpid(), signal.SIGUSR2)


def test_a_refusal_is_not_taken_for_a_checkpoint_that_cannot_be_read(
    on_slurm: None, tmp_path: Path
) -> None:
    def refuse(signum: int, frame: FrameType | None) -> None:
        raise UserError("requeued too often")

    def tell_and_read(path: Path) -> None:
        try:
            os.kill(os.getpid(), signal.SIGUSR2)
        except Exception as error:  # as a reader of files has it
            raise UserError(f"{path} cannot be read") from error

    signal.signal(signal.SIGUSR2, refuse)
    series = RunCheckpoints(attempts.begin(tmp_path), "model", ".pth")
    for step in (1, 2):
        series.save(step, {})
    with pytest.raises(UserError, match="requeued too often"), handle_signals():
        series.load(ALONE, tell_and_read)
    assert [path.name for path in series.newest_first()] == [
        "model_0001_000000002.pth",
        "model_0001_000000001.pth",
    ]


BEFORE = """
import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})  # as launch.slurm.hold_signals does
os.kill(os.getpid(), signal.SIGUSR2)
from common.preemption import handle_signals
signal.signal(signal.SIGUSR2, lambda *_: sys.exit(7))  # submitit's
with handle_signals():
    pass
"""


def test_a_signal_that_came_before_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    root = Path(__file__).resolve().parent.parent.parent
    assert subprocess.run([sys.executable, "-c", BEFORE], cwd=root, check=False).returncode == 7


def test_a_workers_signal_is_not_the_jobs(on_slurm: None, tmp_path: Path) -> None:
    with handle_signals() as told, told.deferred():

        def work() -> None:
            with told.immediate():
                for number in (signal.SIGUSR2, signal.SIGTERM):
                    os.kill(os.getpid(), number)
            os._exit(7)

        worker = Process(target=work)
        worker.start()
        worker.join(20)
        assert worker.exitcode == 7 and not told.should_save()


def test_a_controller_that_is_down_is_asked_again(
    on_slurm: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preemption, "RETRY_S", 0.01)
    asked = []

    def down_twice() -> None:
        asked.append(1)
        if len(asked) < 3:
            raise OSError("Unable to contact slurm controller")
        raise Requeued

    told = Preemption(signal.SIGUSR2, down_twice)
    with pytest.raises(Requeued):
        told.heard(signal.SIGUSR2, None)
    assert len(asked) == 3


def test_an_older_copy_stops(on_slurm: None, tmp_path: Path) -> None:
    first = attempts.begin(tmp_path)
    with handle_signals() as told, told.deferred():
        told.join(ALONE, first)
        assert not told.should_save()
        attempts.begin(tmp_path)
        os.kill(os.getpid(), signal.SIGUSR2)  # whatever it is told, it requeues nobody
        with pytest.raises(SystemExit):
            told.should_save()
        with pytest.raises(SystemExit), told.immediate():
            raise AssertionError


def test_elsewhere_sigterm_saves_and_ends_the_job() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR2, signal.SIGTERM)}
    with pytest.raises(SystemExit) as ended, handle_signals() as told, told.deferred():
        assert signal.getsignal(signal.SIGUSR2) == before[signal.SIGUSR2]
        assert not told.should_save()
        for _ in range(2):  # as from timeout, which tells a process and then its group
            os.kill(os.getpid(), signal.SIGTERM)
        assert told.should_save()
        told.exit_if_preempted()
    assert ended.value.code == 143
    assert {number: signal.getsignal(number) for number in before} == before


def test_elsewhere_sigterm_ends_a_job_at_once_that_has_nothing_to_save() -> None:
    with handle_signals(), pytest.raises(SystemExit) as ended:
        os.kill(os.getpid(), signal.SIGTERM)
    assert ended.value.code == 143
    with handle_signals() as told, told.deferred(), pytest.raises(SystemExit), told.immediate():
        os.kill(os.getpid(), signal.SIGTERM)


def _stopped(world: World, folder: Path) -> None:
    """Rank 1 alone is told before step 5; the main process takes long to save."""
    try:
        with handle_signals() as told, told.deferred():
            told.join(world, begin(folder, world))
            for step in range(9):
                time.sleep(0.01 * world.rank)
                if (step, world.rank) == (5, 1):
                    os.kill(os.getpid(), signal.SIGTERM)
                if told.should_save():
                    if world.is_main:
                        time.sleep(0.5)
                        (folder / "saved").write_text(f"{step}")
                    told.exit_if_preempted()
    except SystemExit as ended:
        (folder / f"{world.rank}").write_text(f"{ended.code}, {(folder / 'saved').read_text()}")


def test_elsewhere_no_process_ends_before_the_main_one_has_saved(tmp_path: Path) -> None:
    in_processes(_stopped, tmp_path)
    assert [(tmp_path / rank).read_text() for rank in "01"] == ["143, 6"] * 2


@contextmanager
def told_on_slurm(world: World, folder: Path) -> Iterator[Preemption]:
    """A job on Slurm; ``requeued`` is there where its main process asked to be."""
    patch = pytest.MonkeyPatch()
    _as_on_slurm(patch)
    try:
        with handle_signals() as told:
            told.join(world, begin(folder, world))
            yield told
    except Requeued:
        assert world.is_main
        (folder / "requeued").touch()
    patch.undo()


def _steps(world: World, folder: Path, signum: int) -> None:
    """Rank 1 alone is told before step 5; each rank notes the steps after which it saved."""
    saved: list[int] = []
    with told_on_slurm(world, folder) as told, told.deferred():
        for step in range(9):
            time.sleep(0.01 * world.rank)
            if (step, world.rank) == (5, 1):
                os.kill(os.getpid(), signum)
            if told.should_save():
                saved.append(step)
                (folder / f"{world.rank}").write_text(f"{saved}")
                if world.rank == 1 and signum == signal.SIGUSR2:
                    break  # it would wait for Slurm to end it
                told.exit_if_preempted()
        told.close()


def _last_step(world: World, folder: Path) -> None:
    """Both are told in the last step, where they have asked for the last time."""
    with told_on_slurm(world, folder) as told:
        with told.deferred():
            for step in range(3):
                if step == 2:
                    os.kill(os.getpid(), signal.SIGUSR2)
                assert not told.should_save()
        assert not world.is_main


def _collective(world: World, folder: Path) -> None:
    """Both are told while the main process waits for the other in a collective."""
    with told_on_slurm(world, folder):
        if world.is_main:
            threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGUSR2)).start()
        else:
            time.sleep(1)
            os.kill(os.getpid(), signal.SIGUSR2)
        dist.all_reduce(torch.ones(()))


def _scenarios(world: World, folder: Path) -> None:
    _steps(world, folder / "USR2", signal.SIGUSR2)
    _steps(world, folder / "TERM", signal.SIGTERM)
    _last_step(world, folder / "last step")
    _collective(world, folder / "collective")


def test_all_processes_save_and_leave_together(tmp_path: Path) -> None:
    for name in ("USR2", "TERM", "last step", "collective"):
        (tmp_path / name).mkdir()
    in_processes(_scenarios, tmp_path)
    for name in ("USR2", "TERM"):
        assert [(tmp_path / name / rank).read_text() for rank in "01"] == ["[6]", "[6]"]
    requeued = {path.parent.name for path in tmp_path.glob("*/requeued")}
    assert requeued == {"USR2", "last step", "collective"}
