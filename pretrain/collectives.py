"""Collectives of pre-training and evaluation; in one process each is its own argument."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from common.distributed import World


def of_all_processes(value: Any) -> list[Any]:
    """A value of every process, in their order."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def add_up(values: Tensor, world: World) -> Tensor:
    """The sum of each process's tensor, on the process's device."""
    total = values.to(world.device, copy=True)
    if dist.is_initialized():
        dist.all_reduce(total)
    return total


def gather(share: Tensor) -> Tensor:
    """The tensors (b, ...) of all processes, in their order: (b * processes, ...)."""
    if not dist.is_initialized():
        return share
    shares = [torch.empty_like(share) for _ in range(dist.get_world_size())]
    dist.all_gather(shares, share.contiguous())
    return torch.cat(shares)


def gather_rows(rows: Tensor) -> Tensor:
    """The rows (n, ...) of all processes, in their order; each may have another number of them.

    The tensor of a process without a row may have any trailing shape.
    """
    counts, widths = zip(*of_all_processes((len(rows), rows.shape[1:])), strict=True)
    width = next((width for n, width in zip(counts, widths, strict=True) if n), rows.shape[1:])
    padded = rows.new_zeros(max(counts), *width)  # collectives want equal shapes
    padded[: len(rows)] = rows.reshape(len(rows), *width)
    parts = gather(padded).split(max(counts)) if max(counts) else [padded]
    return torch.cat([part[:n] for part, n in zip(parts, counts, strict=False)])


def floating_buffers(network: nn.Module) -> list[Tensor]:
    """Its statistics, which differ between processes; counters of batches do not."""
    return [buffer for buffer in network.buffers() if buffer.is_floating_point()]


def take_rank0s(vectors: list[Tensor]) -> None:
    """Overwrite vectors of one type with the first process's, by one broadcast."""
    if vectors and dist.is_initialized():
        flat = torch.cat(vectors)
        dist.broadcast(flat, 0)
        torch._foreach_copy_(vectors, flat.split([len(vector) for vector in vectors]))


@contextmanager
def buffers_of_rank0(network: nn.Module) -> Iterator[None]:
    """Give every process the first one's statistics, and each its own back afterwards.

    BatchNorm that is not synchronised averages other images in each process; only rank 0's
    averages are in a checkpoint, so an evaluation is of those.
    """
    statistics = floating_buffers(network)
    own = [buffer.clone() for buffer in statistics]
    take_rank0s(statistics)
    try:
        yield
    finally:
        for buffer, before in zip(statistics, own, strict=True):
            buffer.copy_(before)
