"""Learning rate and momentum against the reference's values, and float64 formulas."""

import json
import math
from pathlib import Path

import pytest

from pretrain.schedules import learning_rate, target_momentum

REFERENCE = json.loads(
    (Path(__file__).parent.parent / "data" / "lewel_eman_resnet18.json").read_text()
)["schedule_lr3.6_warmup10_epochs200_1251steps"]
STEPS = 1251


def test_warm_up_reaches_the_peak_at_its_last_step() -> None:
    for steps_done, lr in REFERENCE["warmup"].items():
        got = learning_rate(int(steps_done) - 1, STEPS, 200, 10, 3.6)
        assert got == pytest.approx(lr, rel=1e-12)


def test_cosine_per_epoch() -> None:
    for epoch, lr in REFERENCE["cos"].items():
        for step in (int(epoch) * STEPS, int(epoch) * STEPS + STEPS - 1):
            assert learning_rate(step, STEPS, 200, 10, 3.6) == pytest.approx(lr, rel=1e-9)


def test_a_warm_up_of_part_of_an_epoch() -> None:
    rates = [learning_rate(step, 25, 2, 0.2, 1.0) for step in range(50)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[5:25] == [1.0] * 20
    assert rates[25:] == pytest.approx([0.5 * (1 + math.cos(math.pi * 0.8 / 1.8))] * 25)


def test_no_warm_up() -> None:
    assert learning_rate(0, 10, 5, 0, 1.0) == 1.0


def test_momentum_goes_from_base_to_one() -> None:
    assert target_momentum(0, 1000, 0.98) == pytest.approx(0.98, abs=1e-15)
    assert target_momentum(500, 1000, 0.98) == pytest.approx(0.99, abs=1e-15)
    assert target_momentum(1000, 1000, 0.98) == pytest.approx(1.0, abs=1e-15)
