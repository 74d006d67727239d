"""What learns: a method's model on its device, in DDP, with optimizer and mixed precision."""

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from common.distributed import World, settle_buckets
from pretrain.batchnorm import replace_sync_batchnorm
from pretrain.config import ResolvedConfig
from pretrain.method import Method
from pretrain.precision import autocast_dtype, make_scaler, optimizer_step


class Learner:
    """A model that takes optimizer steps; every process has one.

    Attributes:
        model: the method's model.
        optimizer: of its trained parameters.
        scaler: of the loss, for float16.
        dtype: of the forward pass's matrix products; None for float32.
    """

    def __init__(self, method: Method, config: ResolvedConfig, world: World) -> None:
        self.device = world.device
        self.model = method.build(config).to(world.device)
        if world.size > 1 and world.device.type == "cpu":
            replace_sync_batchnorm(self.model)
        self.optimizer = method.optimizer(self.model, config)
        self.dtype = autocast_dtype(config.amp, world)
        self.scaler = make_scaler(self.dtype)
        self.forward: nn.Module = self.model
        if world.size > 1:
            # An EMAN target follows the online network's buffers: rank 0's must be everybody's.
            self.forward = DistributedDataParallel(
                self.model,
                broadcast_buffers=True,
                device_ids=[world.device.index] if world.device.type == "cuda" else None,
            )
            size = config.image_size
            views = torch.randn(2, 2, 3, size, size, generator=torch.Generator()).to(self.device)
            settle_buckets(self.forward, self._loss, *views)

    def step(self, view1: Tensor, view2: Tensor, lr: float) -> tuple[Tensor, bool]:
        """One optimizer step on this process's share of a batch.

        Args:
            view1: (b, 3, h, w).
            view2: likewise.
            lr: learning rate.

        Returns:
            The loss, detached, and whether the step was taken: mixed precision skips one whose
            gradients overflow.
        """
        view1, view2 = (v.to(self.device, non_blocking=True) for v in (view1, view2))
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        loss = self._loss(view1, view2)
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        return loss.detach(), optimizer_step(self.scaler, self.optimizer)

    def _loss(self, view1: Tensor, view2: Tensor) -> Tensor:
        with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype is not None):
            return self.forward(view1, view2)
