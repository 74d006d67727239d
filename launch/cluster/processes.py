"""Where a job goes, and in how many processes."""

import os
import shutil
import subprocess
import time
from dataclasses import asdict
from typing import Literal

import torch

from common.errors import UserError, option
from launch.cluster.resources import Resources, gpus_of_gres, problem, sbatch_options

SLURM_GPUS = 8
TIMEOUT_MIN = 60 * 24
ANSWER_S = 10  # for one question to Slurm's controller
PATIENCE_S = 45  # while it is restarted
PAUSE_S = 3


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
        UserError: if there are not so many GPUs here, or several processes would share one, or
            an option cannot be what it is.
    """
    cluster = resolve_cluster(resources)
    if cluster == "debug":
        started = "WORLD_SIZE" in os.environ or "SLURM_STEP_NUM_TASKS" in os.environ
        for name, value in (
            ("gpus-per-node", resources.gpus_per_node),
            ("tasks-per-node", resources.tasks_per_node),
        ):
            if not started and value is not None and value > 1:
                raise UserError(
                    f"--{name} {value}, but --cluster debug is this one process; use --cluster "
                    "local, or start the command under torchrun."
                )
        return int(os.environ.get("WORLD_SIZE", os.environ.get("SLURM_STEP_NUM_TASKS", 1)))
    for name, value in asdict(resources).items():
        if problem(name, value):
            raise UserError(f"{option(name)} {value}: {problem(name, value)}.")
    sbatch_options(resources.slurm)
    gpus, tasks = gpus_per_node(resources), tasks_per_node(resources)
    typed = gpus_of_gres(resources.slurm)
    if typed not in (None, gpus):
        raise UserError(
            f"--slurm asks for {typed} GPUs of a node and --gpus-per-node for {gpus}; give both "
            "the same number."
        )
    minutes = resources.timeout_min or TIMEOUT_MIN
    if cluster == "slurm" and 60 * minutes <= resources.signal_delay_s + 60:
        raise UserError(
            f"--timeout-min {minutes} leaves no time before Slurm's warning, which comes up to "
            f"{resources.signal_delay_s + 60} s before the end; raise it or lower --signal-delay-s."
        )
    here = torch.cuda.device_count()
    if cluster == "local" and gpus > here:
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


def visible_gpus(count: int) -> str:
    """The first ``count`` of the GPUs that CUDA_VISIBLE_DEVICES leaves us, as it names them."""
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = map(str, range(count)) if allowed is None else map(str.strip, allowed.split(","))
    return ",".join([*names][:count])


def device(resources: Resources) -> Literal["auto", "cuda"]:
    """``cuda`` where the job has GPUs, so that it never falls back to CPUs; else ``auto``."""
    return "cuda" if resolve_cluster(resources) != "debug" and gpus_per_node(resources) else "auto"


def check_controller() -> None:
    """Wait for Slurm's controller, for a moment; without it sbatch would hang.

    Raises:
        UserError: if it does not answer.
    """
    until = time.monotonic() + PATIENCE_S
    told = False
    while _is_down():
        if time.monotonic() > until:
            raise UserError(
                "Slurm's controller does not answer; try again once `scontrol ping` says that it "
                "is up."
            )
        if not told:
            print("waiting for Slurm's controller", flush=True)
        told = True
        time.sleep(PAUSE_S)


def _is_down() -> bool:
    command = ["scontrol", "ping"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_S)
    except subprocess.TimeoutExpired:
        return True
    except OSError:  # sbatch will say what is wrong
        return False
    return "is DOWN" in answer.stdout and "is UP" not in answer.stdout
