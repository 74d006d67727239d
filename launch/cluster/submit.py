"""Handing jobs to Slurm, to this machine, or to this process."""

import signal
import sys
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

from common import runs
from common.errors import UserError
from launch.cluster import slurm
from launch.cluster.follow import Submitted, attach, follow
from launch.cluster.jobs import Job
from launch.cluster.processes import check_controller, processes, resolve_cluster
from launch.cluster.records import Record
from launch.cluster.resources import Resources
from launch.cluster.shared_folder import check_shared
from launch.cluster.states import is_held
from launch.cluster.submission import start_here, submit
from launch.cluster.undisturbed import alone, ctrl_c_later, noted
from launch.cluster.watches import stop

TOLD: list[int] = []  # the SIGTERMs that came while a job ran here, which may have finished it
Known = dict[Path, tuple[Record, slurm.State]]  # by run folder: its job on Slurm, and how that is


def launch(
    jobs: Sequence[Job],
    resources: Resources,
    fresh: bool = False,
    *,
    skip_live: bool | None = None,
) -> list[Submitted]:
    """Run or submit every job that is not finished; print where each one is.

    Slurm gets several jobs as one array, and nobody follows them; this machine runs one after the
    other.

    Args:
        jobs: all of one ``output_dir``.
        resources: of each job.
        fresh: whether to delete what earlier runs left.
        skip_live: whether to leave alone a run that a live job has, and say so; otherwise it is
            refused. One to be followed is refused if the job is not Slurm's. Default: if there
            are several jobs.

    Returns:
        The runs that Slurm has been given, now or before.

    Raises:
        UserError: if a folder holds another run or a job that is running, Slurm refused a job, or
            one that ran here failed.
    """
    cluster = resolve_cluster(resources)
    groups = _by_parent(jobs, cluster)
    for job in jobs:
        if job.after is not None and not fresh and runs.is_finished(job.folder):
            raise UserError(
                f"{job.folder} is finished, from weights that {job.after} had before it was "
                "started anew; delete it, or choose another --name."
            )
    todo = [job for job in jobs if fresh or not _is_done(job, cluster)]
    check_paths(todo, resources)
    if cluster == "debug" and processes(resources) > 1 and (fresh or len(todo) > 1):
        raise UserError(
            "under torchrun or srun a command starts one run, and not with --fresh; give one "
            "value of each option, or use --cluster local or slurm."
        )
    if cluster == "slurm":
        if not todo:
            return []
        check_controller()
        skips = len(jobs) > 1 if skip_live is None else skip_live
        with alone(todo[0].output_dir):
            submitted = []
            for after, group in groups.items():
                mine = [job for job in group if job in todo]
                skip = skips or bool(after)
                submitted += _launch_on_slurm(mine, resources, fresh, after, skip)
            return submitted
    _refuse(_live(_on_slurm(todo)))
    for job in todo:
        if TOLD:
            stop()
        if not fresh:  # which asks for itself
            _without_held([job], {}, skip_live=False)
        print(f"run folder: {job.folder}", flush=True)
        if cluster == "debug":
            with runs.set_aside(job.folder, fresh):
                job()
            continue
        with noted(signal.SIGTERM, TOLD):
            with runs.set_aside(job.folder, fresh):
                handle = start_here(job, resources)
            try:
                print(f"{cluster} job {handle.job_id}", flush=True)
                follow(handle, job, TOLD)
            except BrokenPipeError:
                goes_on = f"job {handle.job_id} goes on, unread; kill {handle.job_id} ends it"
                print(f"{goes_on}, and its output is {handle.paths.stdout}", file=sys.stderr)
                raise
    return []


def _by_parent(jobs: Sequence[Job], cluster: str) -> dict[str, list[Job]]:
    """The jobs by the Slurm job that must succeed first; "" for none.

    Raises:
        UserError: if no job on Slurm has the pre-training that one waits for, or this is not one.
    """
    folders = {job.after for job in jobs if job.after is not None}
    parents = {}
    for folder in folders:
        record = Record.read(folder)
        if record is None or record.cluster != "slurm":
            parents[folder] = ""
            continue
        state = slurm.states([record.job_id])[record.job_id]
        if state.reason == slurm.NO_ANSWER:
            raise UserError("Slurm does not answer; try again when its controller is back.")
        parents[folder] = record.job_id if state.live else ""
    for folder, job_id in parents.items():
        if not job_id:
            raise UserError(
                f"--weights {folder}: this pre-training is not finished, and no job on Slurm has "
                "it; start it again by its own command, or give its checkpoint.pth.tar as it is."
            )
        if cluster != "slurm":
            raise UserError(
                f"the weights are what Slurm job {job_id} will leave, and --cluster {cluster} does "
                "not wait for it; use --cluster slurm, or wait for its end."
            )
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        groups.setdefault(parents[job.after] if job.after is not None else "", []).append(job)
    return groups


def check_paths(jobs: Iterable[Job], resources: Resources) -> None:
    """Raise for a run folder that submitit or Slurm would read as a pattern, as ``%j`` is one.

    Raises:
        UserError: naming the folder.
    """
    if resolve_cluster(resources) == "debug":
        return
    for job in jobs:
        if "%" in str(job.folder):
            raise UserError(
                f"the run folder {job.folder} has a % in its path, which stands for something else "
                "in Slurm and submitit; choose another --output-dir or --name."
            )


def _is_done(job: Job, cluster: str) -> bool:
    runs.check_same(job.folder, job.config.identity())
    if not runs.is_finished(job.folder):
        return False
    print(f"already finished: {job.folder} (--fresh starts it again)", flush=True)
    if cluster != "slurm":
        job()  # its row may be missing from the table
    return True


def _on_slurm(jobs: Sequence[Job]) -> Known:
    """The runs that were given to a job on Slurm last, and what it says of that."""
    records = {job.folder: record for job in jobs if (record := Record.read(job.folder))}
    records = {folder: record for folder, record in records.items() if record.cluster == "slurm"}
    states = slurm.states(record.job_id for record in records.values())
    if any(state.reason == slurm.NO_ANSWER for state in states.values()):
        raise UserError("Slurm does not answer; try again when its controller is back.")
    return {folder: (record, states[record.job_id]) for folder, record in records.items()}


def _live(known: Known) -> Known:
    """Those that the job still has, or will have."""
    return {folder: pair for folder, pair in known.items() if pair[1].live}


def _refuse(live: Known, hint: str = "") -> None:
    for folder, (record, state) in live.items():
        raise UserError(
            f"{folder} is in use by Slurm job {record.job_id} ({state.name}); "
            f"{hint}scancel {record.job_id} to end it, or choose another --name."
        )


def _held_elsewhere(job: Job, known: Known) -> bool:
    """Whether a job outside Slurm has the run: one on this machine, or under torchrun.

    A job on Slurm holds its run as well, and Slurm may have forgotten one that is running.
    """
    _, state = known.get(job.folder, (None, None))
    ended = state is None or not (state.live or state.name == slurm.UNKNOWN)
    return ended and is_held(job.folder)


def _without_held(jobs: Sequence[Job], known: Known, skip_live: bool) -> list[Job]:
    """``jobs`` but for those that a job outside Slurm has, which are named.

    Raises:
        UserError: for such a run, unless it is to be left alone.
    """
    held = [job for job in jobs if _held_elsewhere(job, known)]
    for job in held:
        said = f"{job.folder} is in use by a job that is running"
        if not skip_live:
            raise UserError(f"{said}; wait for it, end it, or choose another --name.")
        print(f"left alone: {said}", flush=True)
    return [job for job in jobs if job not in held]


def _launch_on_slurm(
    todo: Sequence[Job], resources: Resources, fresh: bool, after: str, skip_live: bool
) -> list[Submitted]:
    known = _on_slurm(todo)
    live = _live(known)
    if fresh or not (skip_live or resources.wait):
        _refuse(live, "" if fresh else "add --wait to follow it, ")
    if not fresh:  # which asks for itself
        for job in (job for job in todo if job.folder in live):
            record, _ = live[job.folder]
            runs.require_same(job.folder, record.identity, job.config.identity())
        todo = _without_held(todo, known, skip_live and not resources.wait)
    handles = {}
    for folder, (record, state) in live.items():
        handles[folder] = attach(record, folder)
        print(
            f"already submitted: job {record.job_id} ({state.name}), run folder: {folder}",
            flush=True,
        )
    new = [job for job in todo if job.folder not in live]
    if new:
        check_shared(new[0].output_dir, resources)
        with ctrl_c_later():
            with ExitStack() as stack:
                for job in new:
                    stack.enter_context(runs.set_aside(job.folder, fresh))
                submitted = submit(new, resources, after)
            for job, handle in zip(new, submitted, strict=True):
                handles[job.folder] = handle
                words = f"{handle.job_id}{f' after job {after}' if after else ''}"
                print(f"slurm job {words}, run folder: {job.folder}", flush=True)
    return [Submitted(job, handles[job.folder]) for job in todo]
