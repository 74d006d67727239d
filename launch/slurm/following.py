"""Live output of a job: its log lines, a progress bar, and how it ended."""

import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from tqdm import tqdm

from common import runs
from common.errors import INTERRUPTED_STATUS, STOPPED_STATUS, UserError
from launch.slurm.job import STOPPED, Job, error_file
from launch.slurm.states import (
    FINAL,
    NEVER,
    NO_ANSWER,
    UNKNOWN,
    Record,
    State,
    states,
    waited_in_vain,
)
from launch.slurm.unfinished import steps_done

if TYPE_CHECKING:
    from submitit.core.utils import JobPaths

POLL_S = 0.3  # between two looks at a log
ASK_S = (3.0, 15.0)  # between two questions about a job: at first, and while nothing changes
LATE_S = 5.0  # for a file to arrive over a network file system
TAIL = 4000  # characters of a failed process's output


class Submitted(NamedTuple):
    """A run that Slurm has, and the submitit job that it was given to."""

    job: Job
    handle: Any


def attach(record: Record) -> Any:
    """The submitit job of a record, for :func:`follow` in a process that did not submit it."""
    import submitit

    tasks = list(range(record.tasks))
    return submitit.SlurmJob(folder=record.submitit, job_id=record.job_id, tasks=tasks)


def follow_all(submitted: Sequence[Submitted]) -> None:
    """Follow one job on Slurm after the other; raise once all have ended, if one failed.

    Ctrl-C ends this command and leaves the jobs alone.
    """
    errors = []
    for job, handle in submitted:
        try:
            if not follow(handle, job):
                sys.exit(INTERRUPTED_STATUS)
        except UserError as error:
            errors.append(error)
            if len(submitted) > 1:
                print(f"failed: {job.folder}: {error}", flush=True)
    if len(errors) > 1:
        count = f"{len(errors)} of {len(submitted)}"
        raise UserError(f"{count} runs failed; the same command resumes them.")
    if errors:
        raise errors[0]


def follow(handle: Any, job: Job) -> bool:
    """Print what the main process of a Slurm job prints; False if Ctrl-C ended the watching.

    A job that failed is a UserError, with the job's own sentence where it has one.
    """
    watch = _SlurmWatch(handle, job)
    try:
        _show(handle, job, watch.has_ended)
    except KeyboardInterrupt:
        print(
            f"no longer watching; job {handle.job_id} goes on. The same command with --wait "
            f"follows it again; squeue -j {handle.job_id} shows it, and its output is "
            f"{handle.paths.stdout}"
        )
        return False
    watch.raise_failure()
    return True


def follow_local(handle: Any, job: Job, told: Sequence[int]) -> None:
    """Print what the main process of a job on this machine prints, until the job has ended.

    Ctrl-C ends the job. ``told`` fills with the SIGTERMs that come to this process; the first is
    passed on, and a job that it has ended ends this command.
    """
    passed_on = False

    def has_ended() -> bool:
        nonlocal passed_on
        if told and not passed_on:
            passed_on = True
            handle._process.terminate()
        return handle._process.poll() is not None

    try:
        _show(handle, job, has_ended)
    except KeyboardInterrupt:
        handle.cancel(check=False)
        raise
    status = handle._process.returncode
    if status in STOPPED:
        stop()
    if status != 0:
        _raise_with(f"job {handle.job_id} failed", handle)


def stop() -> NoReturn:
    """End this command after SIGTERM."""
    print("stopped; the same command resumes", file=sys.stderr, flush=True)
    sys.exit(STOPPED_STATUS)


def _show(handle: Any, job: Job, has_ended: Callable[[], bool]) -> None:
    """Print the output of a job and its progress until it has ended."""
    output = Path(handle.paths.stdout)
    shown, ended = 0, False
    with tqdm(total=job.steps, unit="step", disable=not sys.stderr.isatty()) as bar:
        while not ended:
            ended = has_ended()
            shown = _print_from(output, shown)
            if not bar.disable:
                bar.update(max(bar.n, steps_done(job.folder)) - bar.n)
            if not ended:
                time.sleep(POLL_S)


def _print_from(path: Path, position: int) -> int:
    """Print the whole lines of ``path`` after ``position``, leaving out submitit's own."""
    if not path.exists():
        return position
    with path.open("rb") as file:
        if position > file.seek(0, os.SEEK_END):  # it has begun anew
            position = 0
        file.seek(position)
        text = file.read()
    whole = text[: text.rfind(b"\n") + 1]
    for line in whole.decode(errors="replace").splitlines():
        if not line.startswith("submitit "):
            tqdm.write(line, file=sys.stdout)
    sys.stdout.flush()
    return position + len(whole)


class _SlurmWatch:
    """A job of which Slurm says whether it lives, asked in a thread: it may take long to answer.

    The results of processes do not say it: after a signal, processes other than the main one may
    still leave some although the job is requeued.
    """

    def __init__(self, handle: Any, job: Job) -> None:
        self.handle, self.folder = handle, job.folder
        record = Record.read(job.folder)
        self.after = record.after if record is not None else ""
        self.state: State | None = None  # as last seen
        self._heard: State | None = None  # as last heard
        self._question: threading.Thread | None = None
        self._answered = self._changed = time.monotonic()

    def has_ended(self) -> bool:
        before, self.state = self.state, self._look()
        state = self.state
        if state is None:
            return False
        changed = before is None or state.name != before.name  # reasons alone change too often
        if changed and state.name not in FINAL:
            tqdm.write(f"job {self.handle.job_id}: {state.in_words(self.after)}", file=sys.stdout)
        return state.reason == NEVER or not (state.live or state.reason == NO_ANSWER)

    def _look(self) -> State | None:
        """The state as last heard, without waiting; None before the first answer."""
        now = time.monotonic()
        pause = min(max(ASK_S[0], (now - self._changed) / 20), ASK_S[1])
        idle = self._question is None or not self._question.is_alive()
        if idle and (self._question is None or now - self._answered > pause):
            self._question = threading.Thread(target=self._ask, daemon=True)
            self._question.start()
        return self._heard

    def _ask(self) -> None:
        state = states([self.handle.job_id])[self.handle.job_id]
        self._answered = time.monotonic()
        if state != self._heard:
            self._heard, self._changed = state, self._answered

    def raise_failure(self) -> None:
        """Raise unless Slurm says that it succeeded, or has forgotten it and the run is there."""
        assert self.state is not None
        job, name = f"job {self.handle.job_id}", self.state.name
        cancelled = name == "CANCELLED" and self.after
        if waited_in_vain(self.state, states([self.after])[self.after] if cancelled else None):
            parent = f"job {self.after}" if self.after else "a job"
            raise UserError(
                f"{job} did not start: {parent}, which it waited for, did not succeed; mend "
                "that one, and submit both again."
            )
        if name == "COMPLETED" or (name == UNKNOWN and runs.is_finished(self.folder)):
            return
        ending = f"{job} failed"
        if name == UNKNOWN:
            ending = f"{job} left no result, and Slurm no longer knows it"
        elif name != "FAILED":
            ending = f"{job} failed ({self.state.in_words()})"
        outputs = [path for each in _paths(self.handle) for path in (each.stdout, each.stderr)]
        if name != "CANCELLED" and not any(path.exists() for path in outputs):
            raise UserError(
                f"{ending}: its node wrote nothing into {self.handle.paths.folder}; is that on a "
                "file system that all nodes share? If not, choose another --output-dir."
            )
        _raise_with(ending, self.handle)


def _paths(handle: Any) -> "list[JobPaths]":
    """The files of each process."""
    return [handle.task(rank).paths for rank in range(handle.num_tasks)]


def _raise_with(ending: str, handle: Any) -> NoReturn:
    """Raise the job's own sentence; without one, show what a process printed last."""
    paths = _paths(handle)
    _wait_for_any([path for each in paths for path in (error_file(each), each.result_pickle)])
    for each in paths:
        with suppress(OSError):
            raise UserError(error_file(each).read_text())
    # Those that died by themselves first: the others were ended because of them.
    for each in sorted(paths, key=lambda each: not each.result_pickle.exists()):
        text = each.stderr.read_text(errors="replace").strip() if each.stderr.exists() else ""
        if text:
            print(text[-TAIL:], file=sys.stderr)
            break
    raise UserError(
        f"{ending}; its output is in {handle.paths.folder}, and the same command resumes it."
    )


def _wait_for_any(files: Sequence[Path]) -> None:
    """Wait a little for one of these files, which a network file system may show late."""
    until = time.monotonic() + LATE_S
    folder = files[0].parent
    while not any(file.exists() for file in files) and time.monotonic() < until:
        with suppress(OSError):
            folder.chmod(folder.stat().st_mode)  # a change makes the client ask the server
        time.sleep(POLL_S)
