"""LARS and SGD, and the parameters that LARS leaves alone."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pretrain.networks import MLP

if TYPE_CHECKING:
    from pretrain.config import ResolvedConfig

NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


def parameter_groups(
    model: nn.Module, weight_decay: float, adapt_mlp_norms: bool = False
) -> list[dict[str, Any]]:
    """Two groups of the trainable parameters: regular ones, and those excluded.

    Excluded from weight decay and LARS scaling are the parameters of norm layers and all
    biases, told by the module that owns them, not by name. With ``adapt_mlp_norms`` the norms'
    weights in neck and predictors are regular ones, as the LEWEL release's SyncBN code and its
    published log of 100 epochs have it; their biases stay excluded.
    """
    mlps = [m for m in model.modules() if isinstance(m, MLP)] if adapt_mlp_norms else []
    adapted = {module for mlp in mlps for module in mlp.modules()}
    regular: list[Tensor] = []
    excluded: list[Tensor] = []
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad:
                norm = isinstance(module, NORMS) and module not in adapted
                alone = norm or name == "bias"
                (excluded if alone else regular).append(parameter)
    return [
        {"params": regular, "weight_decay": weight_decay, "trust_ratio": True},
        {"params": excluded, "weight_decay": 0.0, "trust_ratio": False},
    ]


class LARS(torch.optim.Optimizer):
    """SGD with momentum and a layer-wise trust ratio (You et al., arXiv 1708.03888).

    With r = eta |w| / (|g| + wd |w|), or 1 for groups with ``trust_ratio`` False:
    d = (g + wd w) r lr; buffer = momentum buffer + d; w -= buffer. r is 1 too where |w| or |g|
    is zero. The learning rate is inside the buffer, as in the LEWEL release. A group's
    parameters are updated together, on a CPU to the bit as one after the other.

    Args:
        groups: as made by :func:`parameter_groups`.
        lr: learning rate.
        momentum: momentum.
        eta: trust coefficient.
    """

    def __init__(
        self, groups: Iterable[Any], lr: float, momentum: float = 0.9, eta: float = 1e-3
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "eta": eta,
            "weight_decay": 0.0,
            "trust_ratio": True,
        }
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                self._update(parameters, [p.grad for p in parameters], group)
        return loss

    def _update(
        self, parameters: list[Tensor], directions: list[Tensor], group: dict[str, Any]
    ) -> None:
        decay, gradients = group["weight_decay"], directions
        if decay or group["trust_ratio"]:
            directions = torch._foreach_add(gradients, parameters, alpha=decay)  # type: ignore[assignment]
        if group["trust_ratio"]:
            weight_norms = torch.stack(torch._foreach_norm(parameters))
            gradient_norms = torch.stack(torch._foreach_norm(gradients))
            ratios = group["eta"] * weight_norms / (gradient_norms + decay * weight_norms)
            usable = (weight_norms > 0) & (gradient_norms > 0)
            ratios = torch.where(usable, ratios, torch.ones_like(ratios))
            torch._foreach_mul_(directions, ratios.unbind())
        states = [self.state[p] for p in parameters]
        for parameter, state in zip(parameters, states, strict=True):
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(parameter)
        buffers = [state["momentum_buffer"] for state in states]
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_add_(buffers, directions, alpha=group["lr"])
        torch._foreach_sub_(parameters, buffers)


def lars(model: nn.Module, config: "ResolvedConfig") -> LARS:
    """LARS, which leaves biases and norms alone, or norms but for those of MLPs."""
    groups = parameter_groups(model, config.weight_decay, config.adapt_mlp_norms)
    return LARS(groups, lr=config.lr)


def sgd(model: nn.Module, config: "ResolvedConfig") -> torch.optim.SGD:
    """SGD with momentum 0.9 and weight decay on every trained parameter, as MoCo has it."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.SGD(trained, config.lr, momentum=0.9, weight_decay=config.weight_decay)
