"""SyncBatchNorm that also works between CPU processes."""

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as dist_nn
from torch import Tensor, nn


class SyncBatchNorm(nn.SyncBatchNorm):
    """``nn.SyncBatchNorm`` on GPUs, the same over differentiable gloo all-reduces on CPUs.

    PyTorch's own raises on CPU tensors as soon as there is a process group. Parameters, buffers
    and their names are the same. Input (b, c, ...), output of the same shape; ranks may hold
    different numbers of values.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise with the statistics of all ranks (train) or the running ones (eval)."""
        together = self.training and dist.is_initialized() and dist.get_world_size() > 1
        if not together or input.device.type != "cpu":
            return super().forward(input)
        return self._forward_gloo(input)

    def _forward_gloo(self, input: Tensor) -> Tensor:
        dims = [0, *range(2, input.dim())]
        shape = [1, -1] + [1] * (input.dim() - 2)
        local = torch.cat([input.sum(dims), input.new_tensor([input.numel() / input.shape[1]])])
        total = dist_nn.all_reduce(local)
        count = total[-1].detach()
        mean = total[:-1] / count
        # Two passes: E[x^2] - E[x]^2 cancels in float32.
        centred = input - mean.view(shape)
        variance = dist_nn.all_reduce(centred.square().sum(dims)) / count
        self._update_running(mean.detach(), variance.detach() * count / (count - 1))
        out = centred * torch.rsqrt(variance + self.eps).view(shape)
        return out * self.weight.view(shape) + self.bias.view(shape)

    @torch.no_grad()
    def _update_running(self, mean: Tensor, unbiased_variance: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(unbiased_variance, self.momentum)


def norm_class(norm: str, dim: int) -> type[nn.Module]:
    """The norm layer of a network: ``eman`` uses plain BatchNorm, ``syncbn`` a synchronised one.

    Args:
        norm: ``eman`` or ``syncbn``.
        dim: 1 for inputs (b, c, n), 2 for inputs (b, c, h, w).
    """
    if norm == "syncbn":
        return SyncBatchNorm
    if norm == "eman":
        return nn.BatchNorm1d if dim == 1 else nn.BatchNorm2d
    raise ValueError(f"norm is 'eman' or 'syncbn', not {norm!r}")
