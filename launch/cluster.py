"""Handing jobs to Slurm, to this machine, or to this process."""

import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import submitit
import torch

from common import runs
from common.errors import UserError
from launch.follow import follow
from launch.jobs import Job
from launch.options import Resources

ROOT = Path(__file__).resolve().parent.parent
SLURM_GPUS = 8
TIMEOUT_MIN = {"slurm": 60 * 24, "local": 60 * 24 * 365}


def resolve_cluster(resources: Resources) -> str:
    """``slurm``, ``local`` or ``debug``.

    Raises:
        UserError: for Slurm without sbatch, or a local or debug job on several nodes.
    """
    cluster = resources.cluster
    has_slurm = shutil.which("sbatch") is not None
    if cluster == "auto":
        started = "RANK" in os.environ or int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1
        cluster = "debug" if started else "slurm" if has_slurm else "local"
    if cluster == "slurm" and not has_slurm:
        raise UserError(
            "--cluster slurm, but sbatch is not on the PATH; use a login node of "
            "your cluster, or --cluster local."
        )
    if cluster != "slurm" and resources.nodes > 1:
        raise UserError(f"--nodes {resources.nodes} needs Slurm; a {cluster} job has one node.")
    return cluster


def processes(resources: Resources) -> int:
    """How many processes a job will have.

    Raises:
        UserError: if there are not so many GPUs here, or several processes would share one.
    """
    cluster = resolve_cluster(resources)
    if cluster == "debug":
        return int(os.environ.get("WORLD_SIZE", os.environ.get("SLURM_STEP_NUM_TASKS", 1)))
    gpus, tasks = gpus_per_node(resources), tasks_per_node(resources)
    for name, value in (("nodes", resources.nodes), ("tasks-per-node", tasks)):
        if value < 1:
            raise UserError(f"--{name} {value}: must be at least 1.")
    here = torch.cuda.device_count()
    if gpus < 0 or (cluster == "local" and gpus > here):
        raise UserError(f"--gpus-per-node {gpus}, but this machine has {here}.")
    if 0 < gpus < tasks:
        raise UserError(f"--tasks-per-node {tasks} on {gpus} GPUs: there is one process per GPU.")
    return resources.nodes * tasks


def gpus_per_node(resources: Resources) -> int:
    """The GPUs of each node: those asked for, or Slurm's usual 8, or all of this machine's."""
    if resources.gpus_per_node is not None:
        return resources.gpus_per_node
    return SLURM_GPUS if resolve_cluster(resources) == "slurm" else torch.cuda.device_count()


def tasks_per_node(resources: Resources) -> int:
    """The processes of each node: those asked for, or one per GPU, or one."""
    return resources.tasks_per_node or max(gpus_per_node(resources), 1)


def visible_gpus(count: int) -> tuple[int, ...]:
    """The first ``count`` of this machine's GPUs that CUDA_VISIBLE_DEVICES leaves us.

    Raises:
        UserError: if it names them otherwise than by number, which submitit cannot hand on.
    """
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is None:
        return tuple(range(count))
    names = [name.strip() for name in allowed.split(",")][:count]
    if not all(name.isdigit() for name in names):
        raise UserError(
            f"CUDA_VISIBLE_DEVICES={allowed} does not name GPUs by number; do so, or start the "
            "command under torchrun."
        )
    return tuple(map(int, names))


def launch(jobs: Sequence[Job], resources: Resources, fresh: bool = False) -> None:
    """Run or submit every job that is not finished; print where each one is.

    Raises:
        UserError: if a job that was waited for failed.
    """
    cluster = resolve_cluster(resources)
    if fresh and int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise UserError(
            "--fresh cannot delete a folder that several processes are about to use; delete it "
            "yourself, or choose another --name."
        )
    for job in jobs:
        if not fresh:
            runs.check_same(job.folder, job.config.identity())
        if runs.is_finished(job.folder) and not fresh:
            print(f"already finished: {job.folder} (--fresh starts it again)", flush=True)
            if cluster != "slurm":
                job()  # its row may be missing from the table
            continue
        if fresh:
            runs.start_afresh(job.folder)
        print(f"run folder: {job.folder}", flush=True)
        if cluster == "debug":
            job()
        else:
            _submit(job, resources, cluster)


def _submit(job: Job, resources: Resources, cluster: str) -> None:
    # The job imports our packages from this checkout, whatever is installed.
    inherited = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *([inherited] if inherited else [])])
    executor = submitit.AutoExecutor(folder=job.folder / "submitit" / "%j", cluster=cluster)
    gpus = gpus_per_node(resources)
    executor.update_parameters(
        name=job.folder.name,
        nodes=resources.nodes,
        tasks_per_node=tasks_per_node(resources),
        gpus_per_node=gpus,
        timeout_min=resources.timeout_min or TIMEOUT_MIN[cluster],
    )
    if cluster == "local" and gpus:
        executor.update_parameters(local_visible_gpus=visible_gpus(gpus))
    if cluster == "slurm":
        executor.update_parameters(cpus_per_task=resources.cpus_per_task, slurm_signal_delay_s=120)
        if resources.partition:
            executor.update_parameters(slurm_partition=resources.partition)
    new = not runs.has_begun(job.folder)
    try:
        handle = executor.submit(job)
    except submitit.core.utils.FailedJobError as error:
        if new:
            runs.start_afresh(job.folder)
        raise UserError(f"Slurm refused the job: {' '.join(str(error).split())}") from error
    finally:
        if inherited is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = inherited
    logging.getLogger("submitit").setLevel(logging.ERROR)
    print(f"{cluster} job {handle.job_id}", flush=True)
    if cluster == "local" or resources.wait:
        follow(handle, job.folder, cancel=cluster == "local")
