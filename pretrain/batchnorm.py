"""BatchNorm over several processes: PyTorch's on GPUs, our own between CPU processes."""

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as dist_nn
from torch import Tensor, nn


def norm_class(norm: str, dim: int) -> type[nn.Module]:
    """The norm layer for inputs (b, c, n), with ``dim`` 1, or (b, c, h, w), with 2."""
    if norm == "syncbn":
        return nn.SyncBatchNorm
    if norm in ("eman", "shufflebn"):
        return nn.BatchNorm1d if dim == 1 else nn.BatchNorm2d
    raise ValueError(f"norm is 'eman', 'shufflebn' or 'syncbn', not {norm!r}")


class GlooBatchNorm(nn.modules.batchnorm._BatchNorm):
    """``nn.SyncBatchNorm`` between CPU processes, over differentiable all-reduces.

    PyTorch's own raises on CPU tensors as soon as there is a process group. Parameters, buffers
    and their names are the same. Input (b, c, ...), output of the same shape; ranks may hold
    different numbers of values.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected (b, c, ...), got {input.dim()} dimensions")

    def forward(self, input: Tensor) -> Tensor:
        """Normalise with the statistics of all ranks (train) or the running ones (eval)."""
        if not self.training or not dist.is_initialized():
            return super().forward(input)
        self._check_input_dim(input)
        with torch.autocast(input.device.type, enabled=False):  # sums are never in half precision
            exact = input.to(torch.promote_types(input.dtype, torch.float32))
            return self._synchronised(exact).to(input.dtype)

    def _synchronised(self, input: Tensor) -> Tensor:
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


def replace_sync_batchnorm(module: nn.Module) -> None:
    """Put a :class:`GlooBatchNorm` with the same tensors in the place of each SyncBatchNorm."""
    for name, child in module.named_children():
        if isinstance(child, nn.SyncBatchNorm):
            norm = GlooBatchNorm(child.num_features, child.eps, child.momentum)
            norm.load_state_dict(child.state_dict())
            for parameter, old in zip(norm.parameters(), child.parameters(), strict=True):
                parameter.requires_grad_(old.requires_grad)
            setattr(module, name, norm.train(child.training))
        else:
            replace_sync_batchnorm(child)
