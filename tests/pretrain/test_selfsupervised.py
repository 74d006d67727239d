"""The EMA target: a loop over tensors gives the same bits; what a step of an R-50 dispatches."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pretrain.lewel import LEWEL
from pretrain.optimizer import LARS, parameter_groups


def small(norm: str) -> LEWEL:
    torch.manual_seed(0)
    return LEWEL("resnet18", norm, proj_dim=16, hidden_dim=24)


@pytest.mark.parametrize("norm", ["eman", "syncbn"])
def test_the_target_follows_to_the_bit_as_one_tensor_at_a_time(norm: str) -> None:
    model = small(norm)
    for step in range(3):
        if step == 2:
            model.double()  # which makes other buffers
        model(*torch.randn(2, 4, 3, 32, 32, dtype=next(model.parameters()).dtype))
        online, wanted = model.online_net.state_dict(), model.target_net.state_dict()
        wanted = {name: tensor.clone() for name, tensor in wanted.items()}
        buffers = {name for name, _ in model.target_net.named_buffers()}
        momentum = model.update_target(step, 10)
        for name, tensor in model.target_net.state_dict().items():
            old, new = wanted[name], online[name]
            if norm == "eman" or name not in buffers:
                old = old.lerp_(new, 1 - momentum) if old.is_floating_point() else new
            assert torch.equal(tensor, old), name


class Operators(TorchDispatchMode):
    """Counts them."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **kwargs or {})


def test_optimizer_and_target_of_an_r50_take_few_operators() -> None:
    """And none that waits for the device: tensors without values have none to give."""
    with torch.device("meta"):
        model = LEWEL()
    optimizer = LARS(parameter_groups(model, 1e-6, adapt_mlp_norms=True), lr=0.4)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    optimizer.step()  # makes the momentum buffers
    with Operators() as operators:
        optimizer.step()
        model.update_target(0, 10)
    assert operators.count <= 30
