"""Submission of jobs to Slurm, this machine or this process."""

import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import Timeout

from common import locks, runs
from common.errors import UserError
from launch.slurm.following import Submitted, attach, follow_local, stop
from launch.slurm.job import Job
from launch.slurm.resources import Resources, processes, resolve_cluster
from launch.slurm.states import UNKNOWN, Record, State, check_controller, slurm_jobs
from launch.slurm.unfinished import is_held

LOCK = ".submit.lock"  # in runs/
LOCK_S = 120.0  # for another command, which may be waiting for sbatch
Known = dict[Path, tuple[Record, State]]  # by run folder: its job on Slurm, and how that is


def launch(
    jobs: Sequence[Job],
    resources: Resources,
    fresh: bool = False,
    *,
    skip_live: bool | None = None,
) -> list[Submitted]:
    """Run or submit every job that is not finished; print where each one is.

    Slurm gets several jobs as one array; this machine runs one after the other.

    Args:
        jobs: all of one ``output_dir``.
        resources: of each job.
        fresh: delete what earlier runs left.
        skip_live: leave alone a run that a live job has, and say so; otherwise it is refused. One
            to be followed is refused if the job is not Slurm's. Default: if there are several
            jobs, or some wait for others.

    Returns:
        The runs that Slurm has been given, now or before.
    """
    cluster = resolve_cluster(resources)
    groups = _by_parent(jobs, cluster)
    todo = [job for job in jobs if fresh or not _is_done(job, cluster)]
    _check_paths(todo, cluster)
    if cluster == "debug" and processes(resources) > 1 and (fresh or len(todo) > 1):
        raise UserError(
            "under torchrun or srun a command starts one run, and not with --fresh; give one "
            "value of each option, or use --cluster local or slurm."
        )
    if cluster != "slurm":
        _run_here(todo, resources, fresh)
        return []
    if not todo:
        return []
    check_controller()
    skips = any(groups) or (len(jobs) > 1 if skip_live is None else skip_live)
    with _alone(todo[0].output_dir):
        known = slurm_jobs(job.folder for job in todo)
        live = {path: pair for path, pair in known.items() if pair[1].live}
        if fresh or not (skips or resources.wait):
            _refuse(live, "" if fresh else "add --wait to follow it, ")
        if not fresh:  # which asks for itself
            for job in (job for job in todo if job.folder in live):
                runs.require_same(job.folder, live[job.folder][0].identity, job.config.identity())
            todo = _without_held(todo, known, skips and not resources.wait)
        handles = {}
        for folder, (record, state) in live.items():
            handles[folder] = attach(record)
            print(
                f"already submitted: job {record.job_id} ({state.name}), run folder: {folder}",
                flush=True,
            )
        for parent, group in groups.items():
            new = [job for job in group if job in todo and job.folder not in live]
            if new:
                handles |= _submit(new, resources, fresh, after=parent)
    return [Submitted(job, handles[job.folder]) for job in todo]


def _check_paths(jobs: Iterable[Job], cluster: str) -> None:
    """Raise for a run folder that submitit or Slurm would read as a pattern, as ``%j`` is one."""
    for job in jobs:
        if cluster != "debug" and "%" in str(job.folder):
            raise UserError(
                f"the run folder {job.folder} has a % in its path, which stands for something else "
                "in Slurm and submitit; choose another --output-dir or --name."
            )


def _is_done(job: Job, cluster: str) -> bool:
    runs.check_same(job.folder, job.config.identity())
    if not runs.is_finished(job.folder):
        return False
    if job.after is not None:
        raise UserError(
            f"{job.folder} is finished, from weights that {job.after} had before it was started "
            "anew; delete it, or choose another --name."
        )
    print(f"already finished: {job.folder} (--fresh starts it again)", flush=True)
    if cluster != "slurm":
        job()  # its row may be missing from the table
    return True


def _by_parent(jobs: Sequence[Job], cluster: str) -> dict[str, list[Job]]:
    """The jobs by the Slurm job that must succeed first, "" for none."""
    known = slurm_jobs({job.after for job in jobs if job.after is not None})
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        if job.after is None:
            groups.setdefault("", []).append(job)
            continue
        if job.after not in known or not known[job.after][1].live:
            raise UserError(
                f"--weights {job.after}: this pre-training is not finished, and no job on Slurm "
                "has it; start it again by its own command, or give its checkpoint.pth.tar as it "
                "is."
            )
        parent = known[job.after][0].job_id
        if cluster != "slurm":
            raise UserError(
                f"the weights are what Slurm job {parent} will leave, and --cluster {cluster} does "
                "not wait for it; use --cluster slurm, or wait for its end."
            )
        groups.setdefault(parent, []).append(job)
    return groups


def _run_here(jobs: Sequence[Job], resources: Resources, fresh: bool) -> None:
    """Run one job after the other: in this process, or in others of this machine."""
    from launch.slurm.executor import start_here

    known = slurm_jobs(job.folder for job in jobs)
    _refuse({path: pair for path, pair in known.items() if pair[1].live})
    for job in jobs:
        if not fresh:  # which asks for itself
            _without_held([job], {}, skip_live=False)
        print(f"run folder: {job.folder}", flush=True)
        if resolve_cluster(resources) == "debug":
            with runs.set_aside(job.folder, fresh):
                job()
            continue
        with _noted(signal.SIGTERM) as told:
            with runs.set_aside(job.folder, fresh):
                handle = start_here(job, resources)
            try:
                print(f"local job {handle.job_id}", flush=True)
                follow_local(handle, job, told)
            except BrokenPipeError:
                goes_on = f"job {handle.job_id} goes on, unread; kill {handle.job_id} ends it"
                print(f"{goes_on}, and its output is {handle.paths.stdout}", file=sys.stderr)
                raise
        if told:  # in the last moment of a run that is finished
            stop()


def _submit(jobs: Sequence[Job], resources: Resources, fresh: bool, after: str) -> dict[Path, Any]:
    """Submit jobs that all wait for one other, or none; their handles by run folder."""
    from launch.slurm.executor import submit

    # Ctrl-C takes effect once the jobs are recorded. Commands inherit what is blocked, but no
    # handler; and another thread may take the signal, which then reaches this one's handler.
    with _noted(signal.SIGINT) as interrupted:
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            with ExitStack() as stack:
                for job in jobs:
                    stack.enter_context(runs.set_aside(job.folder, fresh))
                handles = submit(jobs, resources, after)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    for job, handle in zip(jobs, handles, strict=True):
        words = f"{handle.job_id}{f' after job {after}' if after else ''}"
        print(f"slurm job {words}, run folder: {job.folder}", flush=True)
    if interrupted:
        raise KeyboardInterrupt
    return {job.folder: handle for job, handle in zip(jobs, handles, strict=True)}


def _refuse(live: Known, hint: str = "") -> None:
    for folder, (record, state) in live.items():
        raise UserError(
            f"{folder} is in use by Slurm job {record.job_id} ({state.name}); "
            f"{hint}scancel {record.job_id} to end it, or choose another --name."
        )


def _without_held(jobs: Sequence[Job], known: Known, skip_live: bool) -> list[Job]:
    """Refuse, or with ``skip_live`` leave out, the runs that a job outside Slurm has.

    A job on Slurm holds its run as well, and Slurm may have forgotten one that is running.
    """
    free = []
    for job in jobs:
        state = known[job.folder][1] if job.folder in known else None
        on_slurm = state is not None and (state.live or state.name == UNKNOWN)
        if on_slurm or not is_held(job.folder):
            free.append(job)
            continue
        said = f"{job.folder} is in use by a job that is running"
        if not skip_live:
            raise UserError(f"{said}; wait for it, end it, or choose another --name.")
        print(f"left alone: {said}", flush=True)
    return free


@contextmanager
def _alone(output_dir: Path) -> Iterator[None]:
    """Be the only command that looks for jobs in ``output_dir`` and submits others.

    The lock's file stays in ``runs/``; if that was made for it and has nothing else, both go.
    """
    path = output_dir / "runs" / LOCK
    made = [folder for folder in path.parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = locks.take(path, LOCK_S)
    except Timeout as error:
        raise UserError(
            f"another command is submitting jobs to {output_dir}; try again once it has ended."
        ) from error
    except OSError as error:
        raise runs.unwritable(path.parent, error) from error
    try:
        yield
    finally:
        if made and [*path.parent.iterdir()] == [path]:
            path.unlink()
        if lock is not None:
            lock.release()
        with suppress(OSError):
            for folder in made:
                folder.rmdir()


@contextmanager
def _noted(number: int) -> Iterator[list[int]]:
    """Only take note of this signal within the block; for the main thread."""
    came: list[int] = []
    before = signal.signal(number, lambda number, _: came.append(number))
    try:
        yield came
    finally:
        signal.signal(number, before)
