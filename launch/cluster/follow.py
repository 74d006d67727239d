"""Live output of a job that runs elsewhere: its log lines, a progress bar, how it ended."""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import submitit
from tqdm import tqdm

from common.errors import INTERRUPTED_STATUS, UserError
from launch.cluster.jobs import Job
from launch.cluster.records import Record
from launch.cluster.states import steps_done
from launch.cluster.watches import OnSlurm, OnThisMachine

POLL_S = 0.3


class Submitted(NamedTuple):
    """A run that Slurm has.

    Attributes:
        job: the run.
        handle: the submitit job that it was given to.
    """

    job: Job
    handle: Any


def follow_all(submitted: Sequence[Submitted]) -> None:
    """Follow one job on Slurm after the other, to the end of the last.

    Raises:
        UserError: if one or more failed; only after all have ended.
        SystemExit: after Ctrl-C, which leaves all of them alone.
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


def follow(handle: Any, job: Job, told: Sequence[int] = ()) -> bool:
    """Print what a submitit job's main process prints, until the job has ended.

    Args:
        handle: the submitit job.
        job: what it runs.
        told: the SIGTERMs that come to this process, which a job on this machine is handed on.

    Returns:
        False if Ctrl-C ended the watching and not the job, which is Slurm's.

    Raises:
        UserError: if the job failed, with its own sentence where it has one.
        SystemExit: if SIGTERM has ended a job on this machine.
    """
    output = Path(handle.task(0).paths.stdout)
    on_slurm = isinstance(handle, submitit.SlurmJob)
    watch = OnSlurm(handle, job) if on_slurm else OnThisMachine(handle, told)
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
        if not on_slurm:
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
