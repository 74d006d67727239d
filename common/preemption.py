"""Preemption of a running job: announced by a signal, answered by all of its processes.

Slurm announces the end of a job, by its time limit or to make room for another, with the signal
that submitit asked for (USR2); some sites send TERM instead and requeue the job themselves. A job
with nothing to save asks to be requeued at once. While it trains, a signal only leaves a note: it
comes at any moment, and to some processes earlier than to others. They exchange their notes once a
step, and save together between two steps. Outside Slurm TERM is the signal, and ends the job.
"""

import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist

from common import distributed
from common.attempts import Attempt
from common.distributed import World
from common.errors import STOPPED_STATUS
from common.runs import is_main_process

log = logging.getLogger("cluster")

SAVE, LEAVE, STALE = 1, 2, 3  # the notes; the highest counts
WAIT_S = 600  # for Slurm, to end a job that it has requeued
LOOK_S = 5  # between two looks for a successor
RETRY_S = 5  # while Slurm's controller is down


class _Refused(BaseException):
    """The job may not be requeued; its cause says why.

    No Exception: a signal may interrupt code that catches those, as what reads checkpoints does.
    """


class Preemption:
    """The signals that a job was sent, and the answer to them; made by :func:`handle_signals`.

    ``asked`` is the signal after which the job is to leave. ``requeue`` asks Slurm to start it
    again, and ends this process; it is None outside Slurm, where all processes just end.
    """

    def __init__(
        self, asked: int = signal.SIGTERM, requeue: Callable[[], Any] | None = None
    ) -> None:
        self.asked, self.requeue = asked, requeue
        self.world = World(0, 1, 0, 1, torch.device("cpu"))
        self.attempt: Attempt | None = None
        self._save = self._told = False  # the notes of this process
        self._agreed = False  # on leaving, by all processes
        self._at_once, self._leaving = True, False
        self._looked = time.monotonic()
        self._pid = os.getpid()
        self._group: Any = None
        self._last: Any = None
        # Two, and always these: gloo's threads never have to free one.
        self._notes = [torch.zeros((), dtype=torch.int64) for _ in range(2)]

    def join(self, world: World, attempt: Attempt) -> None:
        """Set the processes to exchange notes with, and this attempt; in every process."""
        self.world, self.attempt = world, attempt
        if world.size > 1 and world.device.type == "cuda":  # which need not wait for a note
            self._group = dist.new_group(backend="gloo", timeout=distributed.timeout())

    def heard(self, signum: int, frame: FrameType | None) -> None:
        """Take a note; the signal handler."""
        if os.getpid() != self._pid:  # a data loader's worker, which Slurm signals as well
            return
        if self._leaving:
            if self.requeue and signum == signal.SIGTERM and not is_main_process():
                os._exit(1)
            return
        if signum != self.asked:
            self._save = True
            return
        self._told = True
        self._leave_if_free()

    def should_save(self) -> bool:
        """True if a checkpoint is to be saved now; every process asks once a step.

        All get the same answer, a step after the first was told. SystemExit if a later copy began.
        """
        mine = self._mine()
        note = mine if self.world.size == 1 else self._exchange(mine)
        if note == STALE:
            self._stop_if_stale()
            raise SystemExit(1)
        if note == SAVE:
            log.info("the cluster announced the end of this job: saving, and going on until then")
        self._agreed = note == LEAVE
        return note > 0

    def exit_if_preempted(self) -> None:
        """Go on, or leave if all processes know that the job is to.

        To be called in every process after the checkpoint for which :meth:`should_save` has asked.
        """
        if not self._agreed:
            return
        if self.requeue is None and self.world.size > 1:
            self.close()
            dist.barrier(self._group)  # no process is the first to end while the main one saves
        self._leave()

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Defer signals to :meth:`should_save` within the block; elsewhere the job leaves at once.

        The block ends with a checkpoint, or with nothing to save.
        """
        self._at_once = False
        try:
            yield
        finally:
            self._at_once = True
        self.close()
        self._leave_if_free()  # told in its last step, after which no process asks

    @contextmanager
    def immediate(self) -> Iterator[None]:
        """Leave at once within the block, which has nothing to save, in the midst of a training."""
        self.close()  # before a data loader forks: gloo's threads are to rest
        before, self._at_once = self._at_once, True
        self._leave_if_free()
        try:
            yield
        finally:
            self._at_once = before

    def close(self) -> None:
        """Wait for the last exchange, as before the process group is left."""
        if self._last is not None:
            self._last.wait()

    def _mine(self) -> int:
        """The note of this process."""
        if self.attempt and self.world.is_main and time.monotonic() - self._looked > LOOK_S:
            self._looked = time.monotonic()
            if not self.attempt.is_newest:
                return STALE
        if self._told:
            return LEAVE
        save, self._save = self._save, False  # said once, done once
        return SAVE if save else 0

    def _exchange(self, mine: int) -> int:
        """The highest note of all processes as of the call before, so that none has to wait."""
        last = self._last
        self._notes.reverse()
        note = self._notes[1].fill_(mine)
        self._last = dist.all_reduce(note, dist.ReduceOp.MAX, group=self._group, async_op=True)
        if last is None:
            return 0
        last.wait()
        return int(self._notes[0])

    def _leave_if_free(self) -> None:
        # Slurm ends the others, which may have to go on until then: the main process may wait for
        # them in a collective.
        mine = is_main_process() or self.requeue is None
        if mine and self._told and self._at_once and not self._leaving:
            self._leave()

    def _leave(self) -> None:
        """Ask for a requeue, in the main process, and wait for Slurm to end the job; or end it."""
        self._leaving = True
        if self.requeue is None:
            if is_main_process():
                log.info("SIGTERM ends this job; the same command resumes it")
            raise SystemExit(STOPPED_STATUS)
        self._stop_if_stale()
        if is_main_process():
            log.info("the cluster announced the end of this job: asking to be requeued")
        until = time.monotonic() + WAIT_S
        while time.monotonic() < until:
            if is_main_process():
                try:
                    self.requeue()
                except (OSError, subprocess.SubprocessError) as error:
                    log.warning("Slurm could not be asked, trying again: %s", error)
                except Exception as error:
                    raise _Refused from error
            time.sleep(RETRY_S)
        raise SystemExit(1)

    def _stop_if_stale(self) -> None:
        if self.attempt and self.world.is_main:
            self.attempt.require_newest()


@contextmanager
def handle_signals() -> Iterator[Preemption]:
    """Handle signals within the block: in a job that submitit started on Slurm its own, else TERM.

    The signals were blocked from the job's first moment on, where
    ``launch.slurm.hold_signals`` started it: one that came meanwhile is heard now. If the job may
    not be requeued any more, the error is submitit's.
    """
    asked: int = signal.SIGTERM
    on_slurm = os.environ.get("SUBMITIT_EXECUTOR") == "slurm"
    if on_slurm:
        asked = getattr(signal, "SIG" + os.environ.get("SUBMITIT_PREEMPT_SIGNAL", "USR2"))
    before = {number: signal.getsignal(number) for number in (asked, signal.SIGTERM)}
    submitits: Any = before[asked]
    preemption = Preemption(asked, (lambda: submitits(asked, None)) if on_slurm else None)
    for number in before:
        signal.signal(number, preemption.heard)
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, before)
        yield preemption
    except _Refused as refused:
        assert refused.__cause__ is not None
        raise refused.__cause__ from None
    finally:
        with suppress(TypeError):  # a handler that Python did not set
            for number, handler in before.items():
                signal.signal(number, handler)
