"""What methods with a queue of negatives share: InfoNCE, the queue, and shuffled BatchNorm.

Momentum Contrast, He et al., CVPR 2020 (arXiv 1911.05722), section 3.
"""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from pretrain.selfsupervised import unit


def info_nce(query: Tensor, key: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """InfoNCE of each query with its key as the positive and the queue as negatives.

    Args:
        query: (n, dim).
        key: (n, dim), without gradient.
        queue: (dim, k), of unit length.
        temperature: divides the cosines.
    """
    with torch.autocast(query.device.type, enabled=False):
        query, key = unit(query), unit(key)
        positive = (query * key).sum(1, keepdim=True)
        negative = query @ queue.to(query.dtype)
        logits = torch.cat([positive, negative], 1) / temperature
        return F.cross_entropy(logits, logits.new_zeros(len(logits), dtype=torch.long))


def new_queue(dim: int, size: int) -> Tensor:
    """Random unit vectors (dim, size)."""
    return F.normalize(torch.randn(dim, size), dim=0)


@torch.no_grad()
def enqueue(queue: Tensor, pointer: Tensor, keys: Tensor) -> None:
    """Put the keys (n, dim) of all processes into the queue (dim, k), over its oldest ones."""
    keys = gather(unit(keys))[: queue.shape[1]]
    places = (pointer + torch.arange(len(keys), device=queue.device)) % queue.shape[1]
    queue[:, places] = keys.T.to(queue.dtype)
    pointer.add_(len(keys)).remainder_(queue.shape[1])


def gather(share: Tensor) -> Tensor:
    """The tensors (b, ...) of all processes, in their order: (b * processes, ...)."""
    if not dist.is_initialized():
        return share
    shares = [torch.empty_like(share) for _ in range(dist.get_world_size())]
    dist.all_gather(shares, share.contiguous())
    return torch.cat(shares)


@torch.no_grad()
def encode_shuffled(encoder: nn.Module, view: Tensor) -> tuple[Tensor, ...]:
    """The encoder's outputs, its BatchNorm over other images than the queries' (section 3.3).

    Every process encodes a random share of all processes' images. In one process there is no
    other share, and the outputs are the plain ones.
    """
    if not dist.is_initialized():
        return _as_tuple(encoder(view))
    everyone = gather(view)
    order = torch.randperm(len(everyone)).to(view.device)
    dist.broadcast(order, 0)
    mine = slice(dist.get_rank() * len(view), (dist.get_rank() + 1) * len(view))
    outputs = _as_tuple(encoder(everyone[order[mine]]))
    back = order.argsort()[mine]
    return tuple(gather(output)[back] for output in outputs)


def _as_tuple(outputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (outputs,) if isinstance(outputs, Tensor) else outputs
