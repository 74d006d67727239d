"""Handing jobs to Slurm, to this machine, or to this process."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from common import runs
from common.errors import UserError
from launch.cluster import slurm
from launch.cluster.follow import attach, follow
from launch.cluster.jobs import Job
from launch.cluster.processes import check_controller, processes, resolve_cluster
from launch.cluster.records import Record
from launch.cluster.resources import Resources
from launch.cluster.submission import start_here, submit


def launch(
    jobs: Sequence[Job],
    resources: Resources,
    fresh: bool = False,
    after: str = "",
    skip_live: bool | None = None,
) -> dict[Path, str]:
    """Run or submit every job that is not finished; print where each one is.

    Slurm gets several jobs as one array before any is followed; this machine runs one after the
    other.

    Args:
        jobs: all of one ``output_dir``.
        resources: of each job.
        fresh: whether to delete what earlier runs left.
        after: the Slurm job that must succeed first; "" for none. Elsewhere it has, by now.
        skip_live: whether to leave alone a run that Slurm already has, and say so; otherwise it is
            refused. Default: if there are several jobs.

    Returns:
        The Slurm job of each run folder that Slurm has been given, now or before.

    Raises:
        UserError: if a folder holds another run or a job that is running, Slurm refused a job, or
            one that was waited for failed.
    """
    cluster = resolve_cluster(resources)
    todo = [job for job in jobs if fresh or not _is_done(job, cluster)]
    if cluster == "debug" and processes(resources) > 1 and (fresh or len(todo) > 1):
        raise UserError(
            "under torchrun or srun a command starts one run, and not with --fresh; give one "
            "value of each option, or use --cluster local or slurm."
        )
    if cluster == "slurm" and todo:
        check_controller()
    live = _live(todo)
    skips = len(jobs) > 1 if skip_live is None else skip_live
    if fresh or cluster != "slurm" or not (skips or resources.wait):
        _refuse(live, follows=cluster == "slurm" and not fresh)
    if cluster == "slurm":
        return _launch_on_slurm(todo, live, resources, fresh, after)
    for job in todo:
        print(f"run folder: {job.folder}", flush=True)
        with runs.set_aside(job.folder, fresh):
            if cluster == "debug":
                job()
                continue
            handle = start_here(job, resources)
        print(f"{cluster} job {handle.job_id}", flush=True)
        follow(handle, job, cancel=True)
    return {}


def _is_done(job: Job, cluster: str) -> bool:
    runs.check_same(job.folder, job.config.identity())
    if not runs.is_finished(job.folder):
        return False
    print(f"already finished: {job.folder} (--fresh starts it again)", flush=True)
    if cluster != "slurm":
        job()  # its row may be missing from the table
    return True


def _live(jobs: Sequence[Job]) -> dict[Path, tuple[Record, slurm.State]]:
    """The runs that a job on Slurm still has, or will have."""
    records = {job.folder: record for job in jobs if (record := Record.read(job.folder))}
    records = {folder: record for folder, record in records.items() if record.cluster == "slurm"}
    known = slurm.states(record.job_id for record in records.values())
    if any(state.reason == slurm.NO_ANSWER for state in known.values()):
        raise UserError("Slurm does not answer; try again when its controller is back.")
    found = {folder: (record, known[record.job_id]) for folder, record in records.items()}
    return {folder: pair for folder, pair in found.items() if pair[1].live}


def _refuse(live: dict[Path, tuple[Record, slurm.State]], follows: bool) -> None:
    for folder, (record, state) in live.items():
        raise UserError(
            f"{folder} is in use by Slurm job {record.job_id} ({state.name}); "
            f"{'add --wait to follow it, ' if follows else ''}scancel {record.job_id} to end it, "
            "or choose another --name."
        )


def _launch_on_slurm(
    todo: Sequence[Job],
    live: dict[Path, tuple[Record, slurm.State]],
    resources: Resources,
    fresh: bool,
    after: str,
) -> dict[Path, str]:
    handles = {}
    for folder, (record, state) in live.items():
        handles[folder] = attach(record, folder)
        print(
            f"already submitted: job {record.job_id} ({state.name}), run folder: {folder}",
            flush=True,
        )
    new = [job for job in todo if job.folder not in live]
    if new:
        with ExitStack() as stack:
            for job in new:
                stack.enter_context(runs.set_aside(job.folder, fresh))
            submitted = submit(new, resources, after)
        for job, handle in zip(new, submitted, strict=True):
            handles[job.folder] = handle
            words = f"{handle.job_id}{f' after job {after}' if after else ''}"
            print(f"slurm job {words}, run folder: {job.folder}", flush=True)
    if resources.wait:
        _follow_all([(handles[job.folder], job) for job in todo])
    return {folder: handle.job_id for folder, handle in handles.items()}


def _follow_all(pairs: Sequence[tuple[Any, Job]]) -> None:
    """Follow one job after the other, to the end of the last, or until Ctrl-C."""
    errors = []
    for handle, job in pairs:
        try:
            if not follow(handle, job, cancel=False):
                break
        except UserError as error:
            errors.append(error)
            if len(pairs) > 1:
                print(f"failed: {job.folder}: {error}", flush=True)
    if len(errors) > 1:
        count = f"{len(errors)} of {len(pairs)}"
        raise UserError(f"{count} runs failed; the same command resumes them.")
    if errors:
        raise errors[0]
