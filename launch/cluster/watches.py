"""Whether a job has ended, and how: by what Slurm says, or of a job on this machine its results."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from tqdm import tqdm

from common import runs
from common.errors import STOPPED_STATUS, UserError
from launch.cluster import slurm
from launch.cluster.controller import STOPPED
from launch.cluster.jobs import Job
from launch.cluster.outcome import error_of, raise_with, tasks_of, wait_for_result, wrote_anything
from launch.cluster.records import Record
from launch.cluster.slurm import State
from launch.cluster.states import NEVER, in_words, is_held, waited_in_vain

FORGOTTEN_S = 60.0  # without a sign of life of a job that Slurm no longer knows


def stop() -> NoReturn:
    """End this command, as SIGTERM asked."""
    print("stopped; the same command resumes", file=sys.stderr, flush=True)
    sys.exit(STOPPED_STATUS)


class OnThisMachine:
    """A job whose processes this one has started."""

    def __init__(self, handle: Any, told: Sequence[int]) -> None:
        self.handle, self.told, self.handed_on = handle, told, False
        self.tasks = tasks_of(handle)

    def has_ended(self) -> bool:
        if self.told and not self.handed_on:
            self.handed_on = True
            self.handle._process.terminate()
        return bool(self.handle.done())

    def raise_failure(self) -> None:
        status = self.handle._process.returncode
        if status in STOPPED:
            stop()
        errors = [error_of(task) for task in self.tasks]
        if any(error != "" for error in errors):
            raise_with(f"job {self.handle.job_id} failed", self.handle, errors)


class OnSlurm:
    """A job of which Slurm says whether it lives.

    Its results do not: after a signal, processes other than the main one may still leave some
    although the job is requeued.
    """

    def __init__(self, handle: Any, job: Job) -> None:
        self.handle, self.folder, self.tasks = handle, job.folder, tasks_of(handle)
        record = Record.read(job.folder)
        self.after = record.after if record is not None else ""
        self.watch = slurm.Watch(handle.job_id)
        self.state: State | None = None
        self._alive = time.monotonic()
        self._sizes: list[int] = []

    def has_ended(self) -> bool:
        before, self.state = self.state, self.watch.look()
        state, now = self.state, time.monotonic()
        if state is None:
            return False
        unanswered = state.reason == slurm.NO_ANSWER
        changed = before is None or state.name != before.name  # reasons alone change too often
        if changed and state.name not in slurm.FINAL:
            tqdm.write(f"job {self.handle.job_id}: {in_words(state, self.after)}", file=sys.stdout)
        if state.name != slurm.UNKNOWN:
            self._alive = now
            return not state.live or state.reason == NEVER
        if unanswered or self._shows_life():
            self._alive = now
            return False
        left = error_of(self.tasks[0], self.folder) is not None
        return left or now - self._alive > FORGOTTEN_S

    def _shows_life(self) -> bool:
        files = (Path(self.tasks[0].paths.stdout), self.folder / "metrics.jsonl")
        before, self._sizes = self._sizes, [f.stat().st_size for f in files if f.exists()]
        return self._sizes != before or is_held(self.folder)

    def raise_failure(self) -> None:
        assert self.state is not None
        job, name = f"job {self.handle.job_id}", self.state.name
        if self._waited_in_vain():
            parent = f"job {self.after}" if self.after else "a job"
            raise UserError(
                f"{job} did not start: {parent}, which it waited for, did not succeed; mend "
                "that one, and submit both again."
            )
        wait_for_result(self.tasks[0])
        error = error_of(self.tasks[0], self.folder)
        done = error == "" or (error is None and runs.is_finished(self.folder))
        if done and name in ("COMPLETED", slurm.UNKNOWN):
            return
        if name == "FAILED" or (name in ("COMPLETED", slurm.UNKNOWN) and error):
            ending = f"{job} failed"
        elif name == slurm.UNKNOWN:
            ending = f"{job} left no result, and Slurm no longer knows it"
        else:
            ending = f"{job} failed ({in_words(self.state)})"
        if name != "CANCELLED" and not wrote_anything(self.tasks):
            raise UserError(
                f"{ending}: its node wrote nothing into {self.handle.paths.folder}; is that on a "
                "file system that all nodes share? If not, choose another --output-dir."
            )
        raise_with(ending, self.handle, [error_of(task, self.folder) for task in self.tasks])

    def _waited_in_vain(self) -> bool:
        assert self.state is not None
        parent = None
        if self.state.name == "CANCELLED" and self.after:
            parent = slurm.states([self.after])[self.after]
        return waited_in_vain(self.state, parent)
