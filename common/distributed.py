"""The processes of a job and their devices, under torchrun, srun, submitit, or alone."""

import copy
import datetime
import functools
import gc
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from common.errors import UserError
from common.runs import is_main_process

T = TypeVar("T")
TIMEOUT = "LEWEL_DIST_TIMEOUT_MIN"
REST_S = 0.02


@dataclass(frozen=True)
class World:
    """The processes of a job, as seen from one of them."""

    rank: int
    size: int
    local_rank: int
    local_size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """True in the one process that writes checkpoints and results."""
        return self.rank == 0


def start(device: str = "auto") -> World:
    """Join the job's process group, if it has more than one process.

    torchrun and submitit tell the rank in RANK and WORLD_SIZE, a bare ``srun`` in SLURM_*.
    There is no process group at world size 1: SyncBatchNorm then is plain BatchNorm, on CPUs too.
    Raises a UserError for ``cuda`` without a GPU, or fewer GPUs than processes on this node.
    """
    _adopt_srun()
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    local_size = int(os.environ.get("LOCAL_WORLD_SIZE", size))
    world = World(rank, size, local_rank, local_size, _device(device, local_rank, local_size))
    if world.device.type == "cuda":
        torch.cuda.set_device(world.device)
    elif size > 1:
        torch.set_num_threads(cpus_per_process(world))
    if size > 1 and not dist.is_initialized():
        gpu = world.device if world.device.type == "cuda" else None
        _name_gloos_interface()
        dist.init_process_group("nccl" if gpu else "gloo", timeout=timeout(), device_id=gpu)
        _pause_before_forks()
    return world


def by_main(work: Callable[[], T]) -> T:
    """The result of ``work`` in the main process, or its UserError, in every process."""
    values: list[Any] = [None, ""]
    if is_main_process():
        try:
            values[0] = work()
        except UserError as error:
            values[1] = str(error)
    if dist.is_initialized():
        dist.broadcast_object_list(values, 0)
    result, refusal = values
    if refusal:
        raise UserError(refusal)
    return result


def settle_buckets(parallel: nn.Module, loss: Callable[..., Tensor], *inputs: Tensor) -> None:
    """Two backward passes that change nothing but the order in which DDP sums gradients.

    DDP groups gradients anew after the first of its passes. With more than two processes that
    changes the order of sums, and a resumed run would differ from an uninterrupted one: call this
    in every process, before the state is loaded. ``inputs`` of ``loss`` may have any values.
    """
    state, stream = copy.deepcopy(parallel.state_dict()), torch.get_rng_state()
    for _ in range(2):
        loss(*inputs).backward()
    parallel.zero_grad()
    parallel.load_state_dict(state)
    torch.set_rng_state(stream)


def cpus_per_process(world: World) -> int:
    """The CPU cores that each process of this node can have, at least one.

    Slurm gives every process cores of its own; elsewhere they share all of the machine's.
    """
    cores = len(os.sched_getaffinity(0))
    return max(cores // world.local_size if cores == os.cpu_count() else cores, 1)


def stop() -> None:
    """Leave the process group, if there is one.

    Whoever still holds the group keeps gloo's threads alive, and one that asks for the lock of the
    interpreter when that ends would abort the process. DDP holds it, in cycles, which are
    collected; a traceback may, and the threads get time to rest.
    """
    if dist.is_initialized():
        dist.destroy_process_group()
        gc.collect()
        time.sleep(REST_S)


@contextmanager
def joined(device: str) -> Iterator[World]:
    """This process among those of its job, until the block ends; see :func:`start`.

    A process that failed does not take leave of a group on GPUs, which would wait for the others.
    """
    world = start(device)
    try:
        yield world
    except BaseException:
        if world.device.type == "cpu":
            stop()
        raise
    stop()


@functools.cache
def _pause_before_forks() -> None:
    """Let gloo's threads come to rest before this process forks, as for a data loader's workers.

    After a collective they hand tensors back to Python, and take a lock of the interpreter for it.
    A child forked in that moment waits for the lock for ever (seen with Python 3.11).
    """
    os.register_at_fork(before=lambda: time.sleep(REST_S))


def timeout() -> datetime.timedelta:
    """The time that a process waits for the others: LEWEL_DIST_TIMEOUT_MIN, by default 30."""
    text = os.environ.get(TIMEOUT, "30")
    try:
        return datetime.timedelta(minutes=float(text))
    except (ValueError, OverflowError) as error:
        raise UserError(f"{TIMEOUT}={text} is not a number of minutes.") from error


def _name_gloos_interface() -> None:
    """Let gloo, which has a job's notes, use the interface that NCCL was told to."""
    name = os.environ.get("NCCL_SOCKET_IFNAME", "")
    if name in (known for _, known in socket.if_nameindex()):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)


def _device(wanted: str, local_rank: int, local_size: int) -> torch.device:
    gpus = torch.cuda.device_count() if wanted != "cpu" else 0
    if wanted == "cuda" and not gpus:
        raise UserError("--device cuda, but PyTorch sees no GPU here; use --device auto or cpu.")
    if not gpus:
        return torch.device("cpu")
    if gpus == 1:  # the cluster gave each process its own
        return torch.device("cuda", 0)
    if gpus < local_size:
        raise UserError(f"{local_size} processes on a node with {gpus} GPUs; start one per GPU.")
    return torch.device("cuda", local_rank)


def _adopt_srun() -> None:
    """Translate a bare ``srun``'s variables into torchrun's."""
    if "RANK" in os.environ or int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) == 1:
        return
    nodes = os.environ.get("SLURM_STEP_NODELIST", os.environ.get("SLURM_JOB_NODELIST", ""))
    hosts = subprocess.run(
        ["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True
    ).stdout.split()
    tasks = int(os.environ["SLURM_STEP_NUM_TASKS"])
    os.environ.setdefault("MASTER_ADDR", hosts[0])
    os.environ.setdefault("MASTER_PORT", str(20000 + int(os.environ["SLURM_JOB_ID"]) % 40000))
    os.environ.update(
        RANK=os.environ["SLURM_PROCID"],
        WORLD_SIZE=str(tasks),
        LOCAL_RANK=os.environ["SLURM_LOCALID"],
        LOCAL_WORLD_SIZE=str(-(-tasks // len(hosts))),
    )
