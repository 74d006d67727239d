"""LARS against a float64 re-derivation, against itself one by one, and against torch's SGD."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pretrain.byol import BYOL
from pretrain.lewel import LEWEL
from pretrain.optimizer import LARS, parameter_groups


@settings(max_examples=40, deadline=None)
@given(
    lr=st.floats(1e-3, 5),
    decay=st.sampled_from([0.0, 1e-6, 1e-2]),
    adapted=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_lars_is_the_published_formula(lr: float, decay: float, adapted: bool, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    parameter = nn.Parameter(weight.clone())
    group = {"params": [parameter], "weight_decay": decay, "trust_ratio": adapted}
    optimizer = LARS([group], lr=lr, momentum=0.9, eta=1e-3)
    w, buffer = weight.numpy().copy(), np.zeros((4, 3))
    for _ in range(3):
        gradient = torch.randn(4, 3, generator=generator, dtype=torch.float64)
        parameter.grad = gradient
        optimizer.step()
        g = gradient.numpy()
        norm_w, norm_g = np.sqrt((w**2).sum()), np.sqrt((g**2).sum())
        ratio = 1e-3 * norm_w / (norm_g + decay * norm_w) if adapted else 1.0
        buffer = 0.9 * buffer + (g + decay * w) * ratio * lr
        w = w - buffer
    np.testing.assert_allclose(parameter.detach().numpy(), w, rtol=1e-12, atol=1e-14)


def test_without_adaptation_it_is_torch_sgd() -> None:
    torch.manual_seed(0)
    ours, theirs = nn.Linear(5, 3), nn.Linear(5, 3)
    theirs.load_state_dict(ours.state_dict())
    group = {"params": ours.parameters(), "trust_ratio": False, "weight_decay": 1e-3}
    optimizers = (
        LARS([group], lr=0.1),
        torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3),
    )
    for _ in range(5):
        x = torch.randn(8, 5)
        for model, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
    torch.testing.assert_close(ours.weight, theirs.weight, rtol=1e-5, atol=1e-7)


def test_a_zero_weight_or_gradient_does_not_stop_or_blow_up_training() -> None:
    parameter = nn.Parameter(torch.zeros(3))
    optimizer = LARS([{"params": [parameter], "trust_ratio": True}], lr=0.5)
    parameter.grad = torch.ones(3)
    optimizer.step()
    assert torch.equal(parameter.detach(), torch.full((3,), -0.5))
    parameter.grad = torch.zeros(3)
    optimizer.step()
    assert torch.isfinite(parameter).all()


class OneByOne(LARS):
    """The formula, one parameter after the other."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self.move(parameter, parameter.grad, group)

    def move(self, parameter: Tensor, direction: Tensor, group: dict[str, Any]) -> None:
        decay = group["weight_decay"]
        if group["trust_ratio"]:
            weight_norm, gradient_norm = parameter.norm(), direction.norm()
            ratio = group["eta"] * weight_norm / (gradient_norm + decay * weight_norm)
            direction = direction.add(parameter, alpha=decay)
            if weight_norm > 0 and gradient_norm > 0:
                direction = direction * ratio
        elif decay:
            direction = direction.add(parameter, alpha=decay)
        buffer = self.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))
        buffer.mul_(group["momentum"]).add_(direction, alpha=group["lr"])
        parameter.sub_(buffer)


@pytest.mark.parametrize(
    ("backbone", "hidden", "decays"), [("resnet50", 4096, (1e-6, 0)), ("resnet18", 8, (0, 1e-2))]
)
def test_all_at_once_is_one_by_one_to_the_bit(
    backbone: str, hidden: int, decays: tuple[float, float]
) -> None:
    """Some are zero, some have a zero gradient or none; the state is saved and loaded."""
    with torch.device("meta"):
        groups = parameter_groups(LEWEL(backbone, hidden_dim=hidden), 0.0, adapt_mlp_norms=True)
    generator = torch.Generator().manual_seed(0)
    ours: list[dict[str, Any]] = []
    theirs: list[dict[str, Any]] = []
    for group, decay in zip(groups, decays, strict=True):
        values = [torch.randn(p.shape, generator=generator) for p in group["params"]]
        values[1].zero_()
        for copies in (ours, theirs):
            parameters = [nn.Parameter(value.clone()) for value in values]
            copies.append(group | {"params": parameters, "weight_decay": decay})
    pairs = [
        pair
        for mine, other in zip(ours, theirs, strict=True)
        for pair in zip(mine["params"], other["params"], strict=True)
    ]
    reference = OneByOne(theirs, lr=0.4)
    state = LARS(ours, lr=0.4).state_dict()
    for step in range(2):
        optimizer = LARS(ours, lr=0.4)
        optimizer.load_state_dict(state)
        for place, (one, other) in enumerate(pairs):
            gradient = torch.randn(one.shape, generator=generator) * 10.0 ** -(place % 8)
            gradient *= place % 50 != 2
            one.grad = other.grad = None if place % 50 == 3 + step else gradient
        optimizer.step()
        reference.step()
        state, wanted = optimizer.state_dict(), reference.state_dict()
        assert all(torch.equal(one, other) for one, other in pairs)
        assert state["state"].keys() == wanted["state"].keys()
        for place, found in state["state"].items():
            buffers = found["momentum_buffer"], wanted["state"][place]["momentum_buffer"]
            assert torch.equal(*buffers)


def test_groups_go_by_module_type_not_by_name() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn = nn.Conv2d(3, 4, 1)  # a convolution that is called bn
            self.conv = nn.SyncBatchNorm(4)  # a norm that is called conv
            self.head = nn.Sequential(nn.LayerNorm(4), nn.GroupNorm(2, 4), nn.Linear(4, 4))
            self.frozen = nn.Linear(2, 2).requires_grad_(False)

    model = Odd()
    names = {id(p): name for name, p in model.named_parameters()}
    regular, excluded = ([names[id(p)] for p in g["params"]] for g in parameter_groups(model, 0.1))
    assert regular == ["bn.weight", "head.2.weight"]
    assert sorted(excluded) == sorted(
        ["bn.bias", "conv.weight", "conv.bias", "head.0.weight", "head.0.bias", "head.1.weight",
         "head.1.bias", "head.2.bias"]
    )  # fmt: skip


MLP_NORMS = [
    f"{mlp}.mlp.1.weight"
    for mlp in ("online_net.neck.proj", "online_net.neck.proj_obj", "predictor", "predictor_obj")
]


@pytest.mark.parametrize("norm", ["eman", "syncbn"])
def test_the_published_run_adapts_four_norms_of_its_mlps(norm: str) -> None:
    """Its log lists 65 weights with a gradient, these four among them, and 110 norms and biases."""
    with torch.device("meta"):
        models = LEWEL(norm=norm), BYOL(norm=norm)
    for model, wanted in zip(models, (MLP_NORMS, MLP_NORMS[::2]), strict=True):
        names = {id(p): name for name, p in model.named_parameters()}
        groups = {}
        for adapt in (False, True):
            both = parameter_groups(model, 1e-6, adapt_mlp_norms=adapt)
            groups[adapt] = [{names[id(p)] for p in group["params"]} for group in both]
            assert [group["weight_decay"] for group in both] == [1e-6, 0]
            assert [group["trust_ratio"] for group in both] == [True, False]
        assert groups[True][0] - groups[False][0] == groups[False][1] - groups[True][1]
        assert sorted(groups[True][0] - groups[False][0]) == sorted(wanted)
        if isinstance(model, LEWEL):
            assert [len(group) for group in groups[True]] == [65, 110]
