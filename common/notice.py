"""What a cluster tells a job that is running, and what follows from it in all of its processes.

Slurm announces the end of a job, by its time limit or to make room for another, with the signal
that submitit asked for (USR2); some sites send TERM instead and requeue the job themselves. A
signal comes at any moment and to some processes earlier than to others, so it only leaves a note.
The processes exchange their notes once a step, and save together between two steps.
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

from common.distributed import World
from common.incarnations import Incarnation

log = logging.getLogger("cluster")

SAVE, REQUEUE, STALE = 1, 2, 3  # the higher one wins
WAIT_S = 600  # for Slurm, to end a job that it has requeued
LOOK_S = 5  # between two looks for a successor
RETRY_S = 5  # while Slurm's controller is down


class Notice:
    """What this job has been told; made by :func:`listening`.

    Args:
        world: this process.
        incarnation: of this job; known in the main process only.
        requeue: asks Slurm to start the job again, and ends this process.
    """

    def __init__(
        self, world: World, incarnation: Incarnation | None, requeue: Callable[[], Any]
    ) -> None:
        self.world, self.incarnation, self.requeue = world, incarnation, requeue
        self._told = 0
        self._at_once = False
        self._looked = time.monotonic()
        self._pid = os.getpid()
        self._last: tuple[Any, torch.Tensor] | None = None
        self._group = None
        if world.size > 1 and world.device.type == "cuda":
            self._group = dist.new_group(backend="gloo")  # a GPU need not wait for a note

    def heard(self, signum: int, frame: FrameType | None) -> None:
        """Take a note; the signal handler."""
        if os.getpid() != self._pid:  # a data loader's worker, which Slurm signals as well
            return
        self._told = max(self._told, SAVE if signum == signal.SIGTERM else REQUEUE)
        if self._at_once and self._told >= REQUEUE:
            self._leave()

    def says_save(self) -> bool:
        """Whether to save a checkpoint now; every process asks once a step.

        All of them get the same answer, a step after the first of them was told.

        Raises:
            SystemExit: if a later copy of this job has begun.
        """
        self._look_for_successor()
        told = self._told
        if told == SAVE:  # said once, done once
            self._told = 0
        note = self._agree(told)
        if note == STALE:
            if self.world.is_main:
                log.warning("a later copy of this job has begun: this one stops")
            raise SystemExit(1)
        if note == SAVE:
            log.info("the cluster announced the end of this job: saving, and going on until then")
        if note == REQUEUE:
            self._told = REQUEUE
        return bool(note)

    def saved(self) -> None:
        """Go on, or leave if the job is to be requeued; after :meth:`says_save` and the saving."""
        if self._told >= REQUEUE:
            self._leave()

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Within the block there is nothing to save: the job leaves as soon as it is told to."""
        self._at_once = True
        if self._told >= REQUEUE:
            self._leave()
        try:
            yield
        finally:
            self._at_once = False

    def _look_for_successor(self) -> None:
        if self.incarnation and time.monotonic() - self._looked > LOOK_S:
            self._looked = time.monotonic()
            if not self.incarnation.is_newest:
                self._told = STALE

    def _agree(self, mine: int) -> int:
        """The highest note of all processes as of the call before, so that none has to wait."""
        if self.world.size == 1:
            return mine
        note = torch.tensor(mine)
        work = dist.all_reduce(note, dist.ReduceOp.MAX, group=self._group, async_op=True)
        last, self._last = self._last, (work, note)
        if last is None:
            return 0
        last[0].wait()
        return int(last[1])

    def _leave(self) -> None:
        """Ask for a requeue, in the main process, and wait for Slurm to end the job."""
        self._at_once = False
        if self.world.is_main:
            log.info("the cluster announced the end of this job: saved, and asking to be requeued")
        until = time.monotonic() + WAIT_S
        while time.monotonic() < until:
            if self.world.is_main:
                try:
                    self.requeue()
                except (OSError, subprocess.SubprocessError) as error:
                    log.warning("Slurm could not be asked, trying again: %s", error)
            time.sleep(RETRY_S)
        raise SystemExit(1)

    def close(self) -> None:
        """Wait for the last exchange."""
        if self._last is not None:
            self._last[0].wait()


@contextmanager
def listening(world: World, incarnation: Incarnation | None) -> Iterator[Notice]:
    """Take notice of Slurm's signals within the block, in a job that submitit started there.

    The signals were blocked from the job's first moment on, where ``launch.hold_signals`` started
    it: one that came meanwhile is heard now.
    """
    if os.environ.get("SUBMITIT_EXECUTOR") != "slurm":
        notice = Notice(world, incarnation, lambda: None)
        yield notice
        notice.close()
        return
    asked = getattr(signal, "SIG" + os.environ.get("SUBMITIT_PREEMPT_SIGNAL", "USR2"))
    before = {number: signal.getsignal(number) for number in (asked, signal.SIGTERM)}
    submitits: Any = before[asked]
    notice = Notice(world, incarnation, lambda: submitits(asked, None))
    for number in before:
        signal.signal(number, notice.heard)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, before)
    try:
        yield notice
        notice.close()
    finally:
        with suppress(TypeError):  # a handler that Python did not set
            for number, handler in before.items():
                signal.signal(number, handler)
