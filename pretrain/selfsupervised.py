"""The base class of pre-training methods: a loss of two views, and an EMA target."""

from abc import ABC, abstractmethod
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pretrain.collectives import floating_buffers, take_rank0s
from pretrain.schedules import target_momentum


class SelfSupervised(nn.Module, ABC):
    """A network that learns from two views, and a target network that follows it by EMA.

    A method's class makes both networks, under whatever names its checkpoints have, and calls
    ``super().__init__`` first and :meth:`train` last.

    Args:
        norm: with ``eman`` the target is always in eval mode, and its BatchNorm statistics follow
            by the same EMA (Cai et al., CVPR 2021); otherwise it is in train mode and has its own.
        base_momentum: the target's momentum at step 0.

    Attributes:
        branch_losses: after a forward pass, the loss's parts, unweighted and detached.
        embedding: after a forward pass, the first view's embeddings (b, dim), detached.
    """

    branch_losses: dict[str, Tensor]
    embedding: Tensor

    def __init__(self, norm: str, base_momentum: float) -> None:
        super().__init__()
        self.norm, self.base_momentum = norm, base_momentum
        self._average: Average | None = None  # once there is a first step

    @abstractmethod
    def forward(self, view1: Tensor, view2: Tensor) -> Tensor:
        """The loss of two views, each (b, 3, h, w); a scalar."""

    @abstractmethod
    def networks(self) -> tuple[nn.Module, nn.Module]:
        """The network that is trained, and the target."""

    def backbone(self) -> nn.Module:
        """The trained backbone, which transfers: images (b, 3, h, w) -> maps (b, c, h', w')."""
        return self.networks()[0].get_submodule("backbone")

    def momentum(self, step: int, total_steps: int) -> float:
        """The target's momentum after ``step``: BYOL's cosine from ``base_momentum`` to 1."""
        return target_momentum(step, total_steps, self.base_momentum)

    def train(self, mode: bool = True) -> Self:
        """Set train or eval mode; an EMAN target always stays in eval mode."""
        super().train(mode)
        if self.norm == "eman":
            self.networks()[1].eval()
        return self

    def update_target(self, step: int, total_steps: int) -> float:
        """Move the target towards the trained network; call after the optimizer's step.

        Args:
            step: the step just taken, counted from 0.
            total_steps: steps of the whole training.

        Returns:
            The momentum used.
        """
        momentum = self.momentum(step, total_steps)
        if self._average is None:
            self._average = Average(*self.networks(), buffers=self.norm == "eman")
        self._average.update(momentum)
        return momentum

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        self._average = None  # ``to`` and its kind make other buffers
        return super()._apply(*args, **kwargs)


def embedding_std(embedding: Tensor) -> Tensor:
    """The spread of embeddings (b, dim): std of each normalised dimension, averaged.

    About 1 / sqrt(dim) where they fill the sphere, 0 where all images have the same one
    (SimSiam, arXiv 2011.10566, section 4.1).
    """
    return F.normalize(embedding.float(), dim=1).std(0, correction=0).mean()


class Average:
    """A target network's tensors, and the trained network's, whose EMA they are.

    Lists of them, made once: looking for them takes longer than the few operations of a step.

    Args:
        online: the network that is trained.
        target: one of the same shape.
        buffers: average BatchNorm's statistics too, as in EMAN (Cai et al., CVPR 2021), those of
            process 0 in all processes; their counters are copied.
    """

    def __init__(self, online: nn.Module, target: nn.Module, buffers: bool) -> None:
        self.statistics = floating_buffers(online) if buffers else []
        self.online = [*online.parameters(), *self.statistics]
        self.target = [*target.parameters(), *(floating_buffers(target) if buffers else [])]
        pairs = zip(online.buffers(), target.buffers(), strict=True)
        counters = [pair for pair in pairs if buffers and not pair[0].is_floating_point()]
        self.counters = list(zip(*counters, strict=True))

    @torch.no_grad()
    def update(self, momentum: float) -> None:
        """target <- momentum * target + (1 - momentum) * online, with momentum from 0 to 1."""
        take_rank0s(self.statistics)
        torch._foreach_lerp_(self.target, self.online, 1 - momentum)
        if self.counters:
            new, old = self.counters
            torch._foreach_copy_(old, new)


def cosine_distance(prediction: Tensor, target: Tensor) -> Tensor:
    """2 - 2 cos of vectors (b, dim, n) along dim, averaged over the b * n vectors."""
    with torch.autocast(prediction.device.type, enabled=False):
        return 2 - 2 * torch.einsum("bdn,bdn->bn", unit(prediction), unit(target)).mean()


def unit(vectors: Tensor) -> Tensor:
    """Vectors (b, dim, ...) of length 1 along dim, in float32 or float64, never in half."""
    return F.normalize(vectors.to(torch.promote_types(vectors.dtype, torch.float32)), dim=1)
