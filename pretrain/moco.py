"""MoCo v2, and the parts of methods with a queue: InfoNCE, the queue, shuffled BatchNorm.

Momentum Contrast: He et al., CVPR 2020 (arXiv 1911.05722), section 3; MoCo v2: Chen et al., 2020
(arXiv 2003.04297).
"""

import copy

import torch
import torch.distributed as dist
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from pretrain.batchnorm import norm_class
from pretrain.collectives import gather
from pretrain.selfsupervised import SelfSupervised, unit


class Contrastive(SelfSupervised):
    """A method with a queue of keys: the target encodes them, and its momentum never changes."""

    def momentum(self, step: int, total_steps: int) -> float:
        return self.base_momentum

    def keys(self, view: Tensor) -> tuple[Tensor, ...]:
        """The target's outputs, under ``shufflebn`` its BatchNorm over shuffled images."""
        with torch.no_grad():
            target = self.networks()[1]
            return _as_tuple(target(view)) if self.norm == "eman" else encode_shuffled(target, view)


class MoCo(Contrastive):
    """Query and key encoder and a queue of keys; tensors are named as in MoCo's release.

    Args:
        backbone: name of a torchvision ResNet.
        norm: ``shufflebn`` (the key encoder's BatchNorm over shuffled images) or ``eman``.
        proj_dim: dimension of the embeddings.
        queue_size: negatives.
        temperature: of InfoNCE.
        base_momentum: the key encoder's momentum, at all steps.
    """

    queue: Tensor
    queue_ptr: Tensor

    def __init__(
        self,
        backbone: str = "resnet50",
        norm: str = "shufflebn",
        proj_dim: int = 128,
        queue_size: int = 65536,
        temperature: float = 0.2,
        base_momentum: float = 0.999,
    ) -> None:
        super().__init__(norm, base_momentum)
        self.temperature = temperature
        self.encoder_q = torchvision.models.get_model(backbone, norm_layer=norm_class(norm, 2))
        width = self.encoder_q.fc.in_features
        layers = nn.Linear(width, width), nn.ReLU(), nn.Linear(width, proj_dim)
        self.encoder_q.fc = nn.Sequential(*layers)
        self.encoder_k = copy.deepcopy(self.encoder_q).requires_grad_(False)
        self.register_buffer("queue", new_queue(proj_dim, queue_size))
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))
        self.train()

    def networks(self) -> tuple[nn.Module, nn.Module]:
        return self.encoder_q, self.encoder_k

    def backbone(self) -> nn.Module:
        """Images (b, 3, h, w) -> the query encoder's feature maps (b, c, h / 32, w / 32)."""
        parts = self.encoder_q.named_children()
        return nn.Sequential(*(m for name, m in parts if name not in ("avgpool", "fc")))

    def forward(self, view1: Tensor, view2: Tensor) -> Tensor:
        """InfoNCE of the first view's embeddings with the second's; each view (b, 3, h, w)."""
        query = self.encoder_q(view1)
        (key,) = self.keys(view2)
        loss = info_nce(query, key, self.queue.clone(), self.temperature)
        enqueue(self.queue, self.queue_ptr, key)
        self.embedding = query.detach()
        self.branch_losses = {"loss_global": loss.detach()}
        return loss


def info_nce(query: Tensor, key: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """InfoNCE of each query (n, dim) with its key as the positive and the queue as negatives.

    Keys (n, dim) are without gradient; those in the queue (dim, k) are of unit length.
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
