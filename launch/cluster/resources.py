"""Where and on what a job runs, and which of sbatch's own options a user may add."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from common.errors import UserError

# What sbatch is told anyway: by an option of ours, or ("") by submitit and us alone.
OURS = {
    "account": "--account",
    "array": "--array-parallelism",
    "comment": "--comment",
    "constraint": "--constraint",
    "cpus-per-gpu": "--cpus-per-gpu",
    "cpus-per-task": "--cpus-per-gpu",
    "exclude": "--exclude",
    "export": "a table [env] in slurm.toml",
    "gpus-per-node": "--gpus-per-node",
    "gpus-per-task": "--gpus-per-node",
    "job-name": "--name",
    "mem": "--mem-gb",
    "nodes": "--nodes",
    "ntasks-per-node": "--tasks-per-node",
    "partition": "--partition",
    "qos": "--qos",
    "requeue": "--max-requeues",
    "no-requeue": "--max-requeues",
    "signal": "--signal-delay-s",
    "time": "--timeout-min",
    "wait": "--wait",
    **dict.fromkeys("clusters dependency error kill-on-invalid-dep ntasks open-mode".split(), ""),
    **dict.fromkeys("output parsable quiet test-only wrap".split(), ""),
}
LEAST = {"gpus_per_node": 0, "max_requeues": 0}  # of other numbers 1


@dataclass(frozen=True)
class Resources:
    """Where and on what a job runs.

    Attributes:
        cluster: slurm, local (a background process on this machine), debug (this process), or
            auto: this process under torchrun or srun, else Slurm if sbatch is on the PATH,
            else local.
        nodes: Number of nodes.
        gpus_per_node: One process each; 0 runs on CPUs. Default: 8 on Slurm, all of this
            machine's elsewhere.
        tasks_per_node: Processes of each node. Default: one per GPU; 1 on CPUs.
        cpus_per_gpu: CPU cores of each process.
        mem_gb: Memory of each node in GB. Default: the partition's own.
        partition: Slurm partition.
        account: Slurm account.
        qos: Slurm quality of service.
        constraint: Features that the nodes must have, as for sbatch.
        exclude: Nodes that are not to be used, as for sbatch.
        comment: A comment for Slurm's accounts.
        slurm: Other options of sbatch, such as reservation=x wckey=name exclusive; also
            gres=gpu:TYPE:8, for GPUs of a type.
        timeout_min: Time limit of the job in minutes. Default: a day on Slurm.
        signal_delay_s: How many seconds before the end of a job Slurm warns it.
        max_requeues: How often Slurm may start a job again that was preempted, lost its node or
            met its time limit.
        array_parallelism: How many jobs of a sweep run at once. Default: as many as Slurm lets.
        wait: Follow the log of a Slurm job to its end.
    """

    cluster: Literal["auto", "slurm", "local", "debug"] = "auto"
    nodes: int = 1
    gpus_per_node: int | None = None
    tasks_per_node: int | None = None
    cpus_per_gpu: int = 8
    mem_gb: float | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    exclude: str | None = None
    comment: str | None = None
    slurm: Annotated[tuple[str, ...], tyro.conf.arg(metavar="KEY=VALUE [KEY=VALUE ...]")] = ()
    timeout_min: int | None = None
    signal_delay_s: int = 120
    max_requeues: int = 20
    array_parallelism: int | None = None
    wait: bool = False


def problem(name: str, value: object) -> str:
    """What is wrong with a field's value, if it is a number that cannot be; else ""."""
    if name == "mem_gb" and isinstance(value, int | float):
        if not 0 < value < float("inf"):
            return "must be more than 0"
        if value * 1024 < 1:  # 0 MB is all of the memory to sbatch
            return "must be at least 0.001, which is 1 MB"
    least = LEAST.get(name, 1)
    if isinstance(value, int) and not isinstance(value, bool) and value < least:
        return f"must be at least {least}"
    return ""


def gpus_of_gres(words: Sequence[str]) -> int | None:
    """How many GPUs of a node ``gres=gpu:TYPE:4`` among the words asks for; None if it does not.

    There may be other things in the list, such as ``gres=nvme:1,gpu:4``, and GPUs of several types.
    """
    lists = [found[1] for word in words if (found := re.fullmatch(r"-*gres=(.*)", word))]
    things = lists[-1].split(",") if lists else []  # the last holds, as for other options
    gpus = [found for thing in things if (found := re.fullmatch(r"gpu(:.+?)??(:(\d+))?", thing))]
    return sum(int(found[3] or 1) for found in gpus) if gpus else None


def sbatch_options(words: Sequence[str], where: str = "--slurm") -> dict[str, str | bool]:
    """KEY=VALUE words as options of sbatch; a KEY alone is a flag.

    Args:
        words: for example ``reservation=x``, ``exclusive``.
        where: they come from, for messages.

    Raises:
        UserError: for what is no option, has no value, or is told to sbatch anyway.
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
