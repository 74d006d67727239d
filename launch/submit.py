"""Handing jobs to Slurm, to this machine, or to this process."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import submitit

from common import runs
from common.errors import UserError
from launch.cluster import (
    gpus_per_node,
    processes,
    resolve_cluster,
    tasks_per_node,
    visible_gpus,
)
from launch.follow import follow
from launch.jobs import Job
from launch.options import Resources

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT_MIN = {"slurm": 60 * 24, "local": 60 * 24 * 365}


def launch(jobs: Sequence[Job], resources: Resources, fresh: bool = False) -> None:
    """Run or submit every job that is not finished; print where each one is.

    Slurm gets several jobs as one array before any is followed; this machine runs one after the
    other.

    Raises:
        UserError: if a folder holds another run, Slurm refused a job, or one that was waited
            for failed.
    """
    cluster = resolve_cluster(resources)
    todo = [job for job in jobs if fresh or not _is_done(job, cluster)]
    if cluster == "debug" and processes(resources) > 1 and (fresh or len(todo) > 1):
        raise UserError(
            "under torchrun or srun a command starts one run, and not with --fresh; give one "
            "value of each option, or use --cluster local or slurm."
        )
    if cluster == "slurm":
        _launch_on_slurm(todo, resources, fresh)
        return
    for job in todo:
        print(f"run folder: {job.folder}", flush=True)
        with runs.set_aside(job.folder, fresh):
            if cluster == "debug":
                job()
                continue
            (handle,) = _submit([job], resources, cluster)
        print(f"{cluster} job {handle.job_id}", flush=True)
        follow(handle, job, cancel=True)


def _launch_on_slurm(todo: Sequence[Job], resources: Resources, fresh: bool) -> None:
    if not todo:
        return
    with ExitStack() as stack:
        for job in todo:
            stack.enter_context(runs.set_aside(job.folder, fresh))
        handles = _submit(todo, resources, "slurm")
    for handle, job in zip(handles, todo, strict=True):
        print(f"slurm job {handle.job_id}, run folder: {job.folder}", flush=True)
    if resources.wait:
        for handle, job in zip(handles, todo, strict=True):
            follow(handle, job, cancel=False)


def _is_done(job: Job, cluster: str) -> bool:
    runs.check_same(job.folder, job.config.identity())
    if not runs.is_finished(job.folder):
        return False
    print(f"already finished: {job.folder} (--fresh starts it again)", flush=True)
    if cluster != "slurm":
        job()  # its row may be missing from the table
    return True


def _submit(jobs: Sequence[Job], resources: Resources, cluster: str) -> list[Any]:
    """Submit one job, or several as one array; their handles."""
    executor, folder = _executor(jobs, resources, cluster)
    new = [path for path in (folder, *(job.folder for job in jobs)) if not path.exists()]
    logging.getLogger("submitit").setLevel(logging.ERROR)
    try:
        with _job_environment():
            if len(jobs) == 1:
                return [executor.submit(jobs[0])]
            with executor.batch():
                return [executor.submit(job) for job in jobs]
    except submitit.core.utils.FailedJobError as error:
        for path in new:
            runs.delete(path)
            runs.delete_empty(path.parent)
        raise UserError(f"Slurm refused the job: {' '.join(str(error).split())}") from error
    except OSError as error:
        raise runs.unwritable(jobs[0].folder, error) from error


def _executor(
    jobs: Sequence[Job], resources: Resources, cluster: str
) -> tuple[submitit.AutoExecutor, Path]:
    """What submits the jobs, and the folder for its own files: a job's, or one of the array's."""
    name = jobs[0].folder.name
    folder = jobs[0].folder / "submitit"
    if len(jobs) > 1:
        name = f"{name}-and-{len(jobs) - 1}-more"
        folder = jobs[0].output_dir / "runs" / "arrays" / name
    executor = submitit.AutoExecutor(
        folder=folder / "%j",
        cluster=cluster,
        # A run may meet its time limit as often as it needs: it resumes from its folder.
        **({"slurm_max_num_timeout": 1000} if cluster == "slurm" else {}),
    )
    executor.update_parameters(
        name=name,
        nodes=resources.nodes,
        tasks_per_node=tasks_per_node(resources),
        gpus_per_node=gpus_per_node(resources),
        timeout_min=resources.timeout_min or TIMEOUT_MIN[cluster],
    )
    if cluster == "slurm":
        executor.update_parameters(
            cpus_per_task=resources.cpus_per_task,
            slurm_signal_delay_s=120,
            # srun takes neither from sbatch; one dead process ends the job.
            slurm_srun_args=[f"--cpus-per-task={resources.cpus_per_task}", "--kill-on-bad-exit=1"],
        )
        if resources.partition:
            executor.update_parameters(slurm_partition=resources.partition)
    elif gpus_per_node(resources):
        executor.update_parameters(local_visible_gpus=visible_gpus(gpus_per_node(resources)))
    return executor, folder


@contextmanager
def _job_environment() -> Iterator[None]:
    """Without our own rank and rendezvous; with this checkout first on the path."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    added = {"PYTHONPATH": path}
    if "SLURM_CONF" in os.environ:  # clean_env takes it away too: where the cluster is must stay
        added["SLURM_CONF"] = os.environ["SLURM_CONF"]
    with submitit.helpers.clean_env():
        before = {name: os.environ.get(name) for name in added}
        os.environ.update(added)
        try:
            yield
        finally:
            for name, value in before.items():
                del os.environ[name]
                if value is not None:
                    os.environ[name] = value
