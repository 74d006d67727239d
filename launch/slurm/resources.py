"""Place and resources of a job: the options of commands, and the number of processes."""

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Literal

import tyro

from common.command_line import RARE
from common.errors import UserError, option

SLURM_GPUS = 8
TIMEOUT_MIN = 60 * 24
# What sbatch is told anyway: by an option of ours, or ("") by submitit and us alone.
_SAME = (
    "account comment constraint cpus-per-gpu exclude gpus-per-node nodes partition qos wait".split()
)
OURS = {
    **{name: f"--{name}" for name in _SAME},
    "array": "--array-parallelism",
    "cpus-per-task": "--cpus-per-gpu",
    "export": "a table [env] in slurm.toml",
    "gpus-per-task": "--gpus-per-node",
    "job-name": "--name",
    "mem": "--mem-gb",
    "ntasks-per-node": "--tasks-per-node",
    "requeue": "--max-requeues",
    "no-requeue": "--max-requeues",
    "signal": "--signal-delay-s",
    "time": "--timeout-min",
    **dict.fromkeys("clusters dependency error kill-on-invalid-dep ntasks open-mode".split(), ""),
    **dict.fromkeys("output parsable quiet test-only wrap".split(), ""),
}
LEAST = {"gpus_per_node": 0, "max_requeues": 0}  # of other numbers 1


@dataclass(frozen=True)
class Resources:
    """Place and resources of a job.

    Attributes:
        cluster: Slurm, this machine, or this process. auto: this process under torchrun or srun,
            else Slurm if sbatch is on the PATH, else local. local: a background process on this
            machine. debug: this process.
        nodes: Number of nodes.
        gpus_per_node: One process each; 0 runs on CPUs. Default: 8 on Slurm, else all.
        tasks_per_node: Processes of each node. Default: one per GPU; 1 on CPUs.
        cpus_per_gpu: CPU cores of each process.
        mem_gb: Memory of each node in GB. Default: the partition's own.
        gpu_memory_gb: Memory of each GPU in GB. A pre-training that would need far more is refused
            before it is submitted, which takes 10 s to count.
        partition: Slurm partition. Default: Slurm's.
        account: Slurm account. Default: Slurm's.
        qos: Slurm quality of service. Default: Slurm's.
        constraint: Features that the nodes must have, as for sbatch.
        exclude: Nodes that are not to be used, as for sbatch.
        comment: A comment for Slurm's accounts.
        slurm: Other options of sbatch. Such as reservation=x wckey=name exclusive; also
            gres=gpu:TYPE:8, for GPUs of a type.
        timeout_min: Time limit of the job in minutes. Default: a day on Slurm.
        signal_delay_s: Seconds before the end of a job at which Slurm warns it.
        max_requeues: How often Slurm may start the job again. One that was preempted, lost its
            node or met its time limit.
        array_parallelism: Jobs of a sweep that run at once. Default: as many as Slurm lets.
        wait: Follow the log of a Slurm job to its end.
    """

    cluster: Literal["auto", "slurm", "local", "debug"] = "auto"
    nodes: int = 1
    gpus_per_node: int | None = None
    tasks_per_node: int | None = field(default=None, metadata=RARE)
    cpus_per_gpu: int = field(default=8, metadata=RARE)
    mem_gb: float | None = field(default=None, metadata=RARE)
    gpu_memory_gb: float | None = field(default=None, metadata=RARE)
    partition: str | None = None
    account: str | None = None
    qos: str | None = field(default=None, metadata=RARE)
    constraint: str | None = field(default=None, metadata=RARE)
    exclude: str | None = field(default=None, metadata=RARE)
    comment: str | None = field(default=None, metadata=RARE)
    slurm: Annotated[tuple[str, ...], tyro.conf.arg(metavar="KEY=VALUE ...")] = ()
    timeout_min: int | None = None
    signal_delay_s: int = field(default=120, metadata=RARE)
    max_requeues: int = field(default=20, metadata=RARE)
    array_parallelism: int | None = field(default=None, metadata=RARE)
    wait: bool = False


def problem(name: str, value: object) -> str:
    """Describe what is wrong with a field's value, if it is a number out of range; else ""."""
    if name in ("mem_gb", "gpu_memory_gb") and isinstance(value, int | float):
        if not 0 < value < float("inf"):
            return "must be more than 0"
        if name == "mem_gb" and value * 1024 < 1:  # 0 MB is all of the memory to sbatch
            return "must be at least 0.001, which is 1 MB"
    least = LEAST.get(name, 1)
    if isinstance(value, int) and not isinstance(value, bool) and value < least:
        return f"must be at least {least}"
    return ""


def gpus_of_gres(words: Sequence[str]) -> int | None:
    """Number of GPUs of a node in words such as ``gres=nvme:1,gpu:TYPE:4``; None without any."""
    lists = [found[1] for word in words if (found := re.fullmatch(r"-*gres=(.*)", word))]
    things = lists[-1].split(",") if lists else []  # the last holds, as for other options
    gpus = [found for thing in things if (found := re.fullmatch(r"gpu(:.+?)??(:(\d+))?", thing))]
    return sum(int(found[3] or 1) for found in gpus) if gpus else None


def sbatch_options(words: Sequence[str], where: str = "--slurm") -> dict[str, str | bool]:
    """Parse words such as ``reservation=x`` and ``exclusive``, a flag, as options of sbatch.

    ``where`` they come from is for messages. An option that is set anyway is a UserError.
    """
    found: dict[str, str | bool] = {}
    for word in words:
        name, equals, value = word.partition("=")
        key = name.lstrip("-").replace("_", "-")
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]*", key):
            raise UserError(f"{where} {word}: is not KEY=VALUE; write for example reservation=x.")
        if equals and not value:
            raise UserError(
                f"{where} {word}: has no value; write {key}=VALUE, or {key} for a flag."
            )
        # sbatch takes an option's beginning for the option.
        taken = [full for full in OURS if full == key] or [f for f in OURS if f.startswith(key)]
        if taken:
            hint = f"use {OURS[taken[0]]} for it" if OURS[taken[0]] else "leave it out"
            raise UserError(f"{where} {word}: {taken[0]} is set otherwise; {hint}.")
        found[key] = value if equals else True
    return found


def resolve_cluster(resources: Resources) -> str:
    """``slurm``, ``local`` or ``debug``; a UserError if that is not to be had here."""
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


def check_numbers(resources: Resources) -> None:
    """Raise a UserError for a number out of its range."""
    for name, value in asdict(resources).items():
        if problem(name, value):
            raise UserError(f"{option(name)} {value}: {problem(name, value)}.")


def processes(resources: Resources) -> int:
    """Number of processes of a job, whose resources are checked."""
    cluster = resolve_cluster(resources)
    if cluster == "debug":
        return _started_processes(resources)
    check_numbers(resources)
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
    if cluster == "local" and gpus and gpus > (here := _gpus_here()):
        raise UserError(f"--gpus-per-node {gpus}, but this machine has {here}.")
    if 0 < gpus < tasks:
        raise UserError(f"--tasks-per-node {tasks} on {gpus} GPUs: there is one process per GPU.")
    return resources.nodes * tasks


def _started_processes(resources: Resources) -> int:
    """Number of processes that torchrun or srun has started, or one."""
    number = os.environ.get("WORLD_SIZE", os.environ.get("SLURM_STEP_NUM_TASKS"))
    for name in ("gpus_per_node", "tasks_per_node"):
        value = getattr(resources, name)
        if number is None and value is not None and value > 1:
            raise UserError(
                f"{option(name)} {value}, but --cluster debug is this one process; use --cluster "
                "local, or start the command under torchrun."
            )
    return int(number or 1)


def gpus_per_node(resources: Resources) -> int:
    """The GPUs of each node: those asked for, or Slurm's usual 8, or all of this machine's."""
    if resources.gpus_per_node is not None:
        return resources.gpus_per_node
    return SLURM_GPUS if resolve_cluster(resources) == "slurm" else _gpus_here()


def _gpus_here() -> int:
    import torch

    return torch.cuda.device_count()


def tasks_per_node(resources: Resources) -> int:
    """The processes of each node: those asked for, or one per GPU, or one."""
    return resources.tasks_per_node or max(gpus_per_node(resources), 1)


def device(resources: Resources) -> Literal["auto", "cuda"]:
    """``cuda`` where the job has GPUs, so that it never falls back to CPUs; else ``auto``."""
    return "cuda" if resolve_cluster(resources) != "debug" and gpus_per_node(resources) else "auto"
