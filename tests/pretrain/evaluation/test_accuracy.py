"""The Wilson interval against published values and its definition; top-1 and top-5."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pretrain.evaluation.accuracy import Accuracy, count_correct, wilson


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_is_newcombes_table(correct: int, total: int, low: float, high: float) -> None:
    """Newcombe, Statistics in Medicine 17 (1998), table I, method 3."""
    assert wilson(correct, total) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 10_000), st.data())
def test_the_limits_solve_the_score_equation(total: int, data: st.DataObject) -> None:
    """A limit p is where the share is z standard deviations of a binomial away from p."""
    correct = data.draw(st.integers(0, total))
    share, z = correct / total, 1.959963984540054
    low, high = wilson(correct, total)
    assert 0 <= low <= share <= high <= 1 and low < high
    for limit in (low, high):
        variance = limit * (1 - limit) / total
        assert (share - limit) ** 2 == pytest.approx(z * z * variance, rel=1e-6, abs=1e-12)


def test_an_accuracy_is_in_percent() -> None:
    accuracy = Accuracy(81, 263)
    assert accuracy.percent == pytest.approx(30.798, abs=1e-3)
    assert accuracy.interval == pytest.approx((25.53, 36.62), abs=5e-3)
    assert math.isnan(Accuracy(0, 0).percent) and Accuracy(0, 0).interval == (0, 100)


@pytest.mark.parametrize("classes", [3, 5, 12])
def test_counts_are_those_of_sorting(classes: int) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(50, classes, generator=generator)
    labels = torch.randint(classes, (50,), generator=generator)
    order = np.argsort(-logits.numpy(), axis=1)
    top1 = sum(order[i, 0] == labels[i].item() for i in range(50))
    top5 = sum(labels[i].item() in order[i, :5] for i in range(50))
    assert count_correct(logits, labels).tolist() == [top1, top5, 50]
