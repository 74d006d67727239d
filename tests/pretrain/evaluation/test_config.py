"""Protocols, their scaling, and which configurations are the same run."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from common.errors import UserError
from common.weights import Weights
from pretrain.evaluation.config import LinearConfig, SemiConfig, decay

WEIGHTS = Weights("resnet50", "somewhere.pth", "0123456789abcdef", "LEWEL_B", "eman", 200)


def test_the_published_protocols(demo_root: Path) -> None:
    linear = LinearConfig(data="demo").resolve(WEIGHTS)
    assert (linear.batch_size, linear.epochs, linear.image_size) == (256, 50, 224)
    assert (linear.rates, linear.weight_decay, linear.frozen) == ({"lr": 0.4}, 0, True)
    one, ten = (SemiConfig(data="demo", percent=p).resolve(WEIGHTS) for p in (1, 10))
    assert one.rates == {"backbone_lr": 1e-4, "head_lr": 1.0}
    assert ten.rates == {"backbone_lr": 1e-2, "head_lr": 0.1}
    assert one.weight_decay == ten.weight_decay == 1e-4 and not one.frozen
    assert (one.batch_size, one.epochs, one.percent, ten.percent) == (256, 50, 1, 10)


def test_rates_follow_the_batch_unless_they_are_given(demo_root: Path) -> None:
    assert LinearConfig(data="demo", batch_size=1024).resolve(WEIGHTS).rates == {"lr": 1.6}
    assert LinearConfig(data="demo", batch_size=1024, lr=0.4).resolve(WEIGHTS).rates == {"lr": 0.4}
    semi = SemiConfig(data="demo", batch_size=128, head_lr=3.0).resolve(WEIGHTS)
    assert semi.rates == {"backbone_lr": 5e-5, "head_lr": 3.0}


def test_the_rate_falls_at_30_and_40_of_50_epochs() -> None:
    factors = [decay(epoch, 50) for epoch in range(50)]
    assert factors == pytest.approx([1.0] * 30 + [0.1] * 10 + [0.01] * 10)


def test_a_name_tells_runs_apart(demo_root: Path) -> None:
    base = LinearConfig(data="demo").resolve(WEIGHTS)
    assert base.run_name().startswith("resnet50-01234567-e50-lr0.4-b256-s0-")
    changes: list[dict[str, Any]] = [
        {"seed": 1}, {"head_lr": 1.0}, {"epochs": 90}, {"image_size": 112}, {"amp": "off"},
        {"weight_decay": 1e-5}, {"val_data": "elsewhere"}, {"batch_size": 512},
        {"weights": Weights("resnet50", "somewhere.pth", "fedcba", "LEWEL_B")},
    ]  # fmt: skip
    names = {dataclasses.replace(base, **change).run_name() for change in changes}
    assert len(names | {base.run_name()}) == len(changes) + 1
    for change in ({"workers": 2}, {"device": "cpu"}, {"log_every": 1}):
        assert dataclasses.replace(base, **change).run_name() == base.run_name()
    moved = dataclasses.replace(WEIGHTS, path="elsewhere.pth", method="another label")
    assert dataclasses.replace(base, weights=moved).identity() == base.identity()


def test_a_list_is_part_of_a_runs_identity(tmp_path: Path, demo_root: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(f"{name}.jpg\n")
    seeded, a, b = (
        SemiConfig(data="demo", list_path=path).resolve(WEIGHTS)
        for path in (None, str(tmp_path / "a"), str(tmp_path / "b"))
    )
    assert len({config.run_name() for config in (seeded, a, b)}) == 3
    assert a.run_name().startswith("resnet50-01234567-1percent-e50-lr0.0001-1-b256-s0-")
    random = SemiConfig(data="demo").resolve(Weights("resnet18"))
    assert random.run_name().startswith("resnet18-random-1percent-e50-")


@pytest.mark.parametrize(
    ("field", "value"),
    [("epochs", 0), ("image_size", 0), ("seed", -1), ("weight_decay", -0.1), ("log_every", 0),
     ("lr", 0.0), ("lr", float("nan")), ("lr", float("inf")), ("workers", -1)],
)  # fmt: skip
def test_a_number_that_cannot_be_is_named(demo_root: Path, field: str, value: float) -> None:
    config = LinearConfig(**{"data": "demo", field: value})  # type: ignore[arg-type]
    with pytest.raises(UserError, match=f"--{field.replace('_', '-')} {value}: must be"):
        config.resolve(WEIGHTS)
