"""What the processes of an evaluation tell each other."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn

from common.distributed import World


def add_up(counts: Tensor, world: World) -> Tensor:
    """The sum over the processes of a tensor that each has its own of; the same in all."""
    total = counts.to(world.device, copy=True)
    if world.size > 1:
        dist.all_reduce(total)
    return total


def gather_rows(rows: Tensor, world: World) -> Tensor:
    """The rows of all processes, in the order of the processes; the same in all.

    Args:
        rows: (n, ...) on the process's device, where n may differ between processes. A process
            without a row need not know the width: its tensor may have any trailing shape.
    """
    if world.size == 1:
        return rows
    shape = torch.zeros(world.size, rows.dim(), dtype=torch.int64, device=world.device)
    shape[world.rank] = torch.tensor(rows.shape)
    if not len(rows):
        shape[world.rank] = 0
    dist.all_reduce(shape)
    counts = shape[:, 0].tolist()
    width = shape[:, 1:].amax(0).tolist()
    # Collectives want equal shapes: what is missing is padded, and cut off again.
    padded = rows.new_zeros(max(counts), *width)
    if len(rows):
        padded[: len(rows)] = rows
    everyone = [torch.empty_like(padded) for _ in range(world.size)]
    dist.all_gather(everyone, padded)
    return torch.cat([part[:count] for part, count in zip(everyone, counts, strict=True)])


@contextmanager
def buffers_of_rank0(network: nn.Module, world: World) -> Iterator[None]:
    """Give every process the first one's buffers, and each its own back afterwards.

    BatchNorm that is not synchronised averages other images in each process; only rank 0's
    averages are in a checkpoint, so an evaluation is of those.
    """
    if world.size == 1:
        yield
        return
    own = [buffer.clone() for buffer in network.buffers()]
    for buffer in network.buffers():
        dist.broadcast(buffer, 0)
    try:
        yield
    finally:
        for buffer, before in zip(network.buffers(), own, strict=True):
            buffer.copy_(before)
