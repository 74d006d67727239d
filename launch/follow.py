"""Live output of a job that runs elsewhere: its log lines, a progress bar, how it ended."""

import os
import pickle
import re
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import submitit
from submitit.core.utils import pickle_load
from tqdm import tqdm

from common import incarnations, runs
from common.errors import UserError
from launch import slurm
from launch.jobs import Job
from launch.records import Record
from launch.slurm import State
from launch.states import NEVER, in_words, is_held, steps_done, waited_in_vain

POLL_S = 0.3
FORGOTTEN_S = 60.0  # without a sign of life of a job that Slurm no longer knows
RESULT_S = 5.0  # for a result to arrive over a network file system
SENTENCE = re.compile(r"common\.errors\.UserError: (.+)")


def follow(handle: Any, job: Job, cancel: bool) -> bool:
    """Print what a submitit job's main process prints, until the job has ended.

    Args:
        handle: the submitit job.
        job: what it runs.
        cancel: whether Ctrl-C, and on this machine the failure of one process, ends the job.

    Returns:
        False if Ctrl-C ended the watching and not the job.

    Raises:
        UserError: if the job failed, with its own sentence where it has one.
    """
    output = Path(handle.task(0).paths.stdout)
    on_slurm = isinstance(handle, submitit.SlurmJob)
    watch = _OnSlurm(handle, job) if on_slurm else _OnThisMachine(handle, cancel)
    shown = 0
    bar = tqdm(total=job.steps, unit="step", disable=not sys.stderr.isatty())
    try:
        while True:
            ended = watch.has_ended()
            shown = _print_from(output, shown)
            if not bar.disable:
                bar.update(max(bar.n, steps_done(job.folder)) - bar.n)
            if ended:
                break
            time.sleep(POLL_S)
    except KeyboardInterrupt:
        if cancel:
            handle.cancel(check=False)
            raise
        print(
            f"no longer watching; job {handle.job_id} goes on. The same command with --wait "
            f"follows it again; squeue -j {handle.job_id} shows it, and its output is {output}"
        )
        return False
    finally:
        bar.close()
    watch.raise_failure()
    return True


def attach(record: Record, folder: Path) -> Any:
    """The submitit job of a record, for :func:`follow` in a process that did not submit it.

    Args:
        record: of a job on Slurm.
        folder: the run folder, which may have been moved with submitit's files in it.
    """
    files = Path(record.submitit)
    moved = folder / "submitit" / record.job_id
    if not files.exists() and moved.exists():
        files = moved
    return submitit.SlurmJob(folder=files, job_id=record.job_id, tasks=list(range(record.tasks)))


class _OnThisMachine:
    """A job whose processes this one has started."""

    def __init__(self, handle: Any, cancel: bool) -> None:
        self.handle, self.cancel = handle, cancel
        self.tasks = _tasks(handle)

    def has_ended(self) -> bool:
        ended: bool = self.handle.done(force_check=self.cancel)
        if not ended and self.cancel and any(_error(task) for task in self.tasks):
            self.handle.cancel(check=False)  # the other processes wait for the dead one
        return ended

    def raise_failure(self) -> None:
        errors = [_error(task) for task in self.tasks]
        if any(error != "" for error in errors):
            _raise(f"job {self.handle.job_id} failed", self.handle, errors)


class _OnSlurm:
    """A job of which Slurm says whether it lives.

    Its results do not: after a signal, processes other than the main one may still leave some
    although the job is requeued.
    """

    def __init__(self, handle: Any, job: Job) -> None:
        self.handle, self.folder, self.tasks = handle, job.folder, _tasks(handle)
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
        if changed and (state.live or unanswered):
            tqdm.write(f"job {self.handle.job_id}: {in_words(state, self.after)}", file=sys.stdout)
        if state.name != slurm.UNKNOWN:
            self._alive = now
            return not state.live or state.reason == NEVER
        if unanswered or self._shows_life():
            self._alive = now
            return False
        return _error(self.tasks[0], self.folder) == "" or now - self._alive > FORGOTTEN_S

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
                f"{job} did not start, because {parent}, which it waited for, failed; mend that "
                "one, and submit both again."
            )
        _refresh(self.tasks[0])
        error = _error(self.tasks[0], self.folder)
        done = error == "" or (error is None and runs.is_finished(self.folder))
        if done and name in ("COMPLETED", slurm.UNKNOWN):
            return
        if name == slurm.UNKNOWN:
            ending = f"{job} left no result, and Slurm no longer knows it"
        elif name == "FAILED" or (name == "COMPLETED" and error):
            ending = f"{job} failed"
        else:
            ending = f"{job} failed ({in_words(self.state)})"
        if name != "CANCELLED" and not _wrote_anything(self.tasks):
            raise UserError(
                f"{ending}: its node wrote nothing into {self.handle.paths.folder}; is that on a "
                "file system that all nodes share? If not, choose another --output-dir."
            )
        _raise(ending, self.handle, [_error(task, self.folder) for task in self.tasks])

    def _waited_in_vain(self) -> bool:
        assert self.state is not None
        parent = None
        if self.state.name == "CANCELLED" and self.after:
            parent = slurm.states([self.after])[self.after]
        return waited_in_vain(self.state, parent)


def _tasks(handle: Any) -> list[Any]:
    return [handle.task(i) for i in range(handle.num_tasks)]


def _error(task: Any, folder: Path | None = None) -> str | None:
    """The traceback that a process ended with, empty if it ended well; None if it left nothing.

    What is older than the newest incarnation of the run in ``folder`` does not count.
    """
    path = Path(task.paths.result_pickle)
    marks = (folder / incarnations.FOLDER).glob("*.json") if folder is not None else ()
    try:
        if path.stat().st_mtime_ns < max((m.stat().st_mtime_ns for m in marks), default=0):
            return None
        outcome, result = pickle_load(path)
    except (OSError, EOFError, pickle.UnpicklingError):
        return None
    return str(result) if outcome == "error" else ""


def _refresh(task: Any) -> None:
    """Wait a little for a process's result, which a network file system may show late."""
    until = time.monotonic() + RESULT_S
    folder, path = Path(task.paths.folder), Path(task.paths.result_pickle)
    while not path.exists() and time.monotonic() < until:
        with suppress(OSError):
            folder.chmod(folder.stat().st_mode)  # a change makes the client ask the server
        time.sleep(POLL_S)


def _wrote_anything(tasks: list[Any]) -> bool:
    paths = (path for task in tasks for path in (task.paths.stdout, task.paths.stderr))
    return any(Path(path).exists() for path in paths)


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


def _raise(ending: str, handle: Any, errors: list[str | None]) -> NoReturn:
    """The job's own sentence if there is one; else what it printed last, and where the rest is.

    Args:
        ending: how it ended, in a few words.
        handle: the submitit job.
        errors: what :func:`_error` says of each of its processes.
    """
    for error in filter(None, errors):
        for sentence in reversed(SENTENCE.findall(error)):
            raise UserError(sentence.strip())
    # Those that died by themselves first: the others were ended because of them.
    ordered = sorted(zip(_tasks(handle), errors, strict=True), key=lambda pair: not pair[1])
    for task, trace in ordered:
        stderr = Path(task.paths.stderr)
        text = stderr.read_text(errors="replace").strip() if stderr.exists() else ""
        if text or trace:
            print((text or trace or "")[-4000:], file=sys.stderr)
            break
    raise UserError(
        f"{ending}; its output is in {handle.paths.folder}, and the same command resumes it."
    )
