"""Features, what processes tell each other of them, the Wilson interval, top-1 and top-5."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from common.distributed import World
from pretrain.collectives import add_up, buffers_of_rank0, gather_rows
from pretrain.evaluation.features import Accuracy, count_correct, extract
from tests.alone import ALONE
from tests.pretrain.evaluation.sources import TensorSource
from tests.processes import in_processes


def test_features_are_pooled_maps_in_float32() -> None:
    images = torch.randn(7, 3, 2, 2, generator=torch.Generator().manual_seed(2))
    source = TensorSource(images, [i % 3 for i in range(7)], "val")
    torch.manual_seed(3)
    net = nn.Sequential(nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6)).eval()
    with torch.no_grad():
        maps = net(source.images)
    found = extract(net, source, 2, 0, ALONE, batch_size=3)
    torch.testing.assert_close(found.vectors, maps.mean((2, 3)))
    assert found.labels.tolist() == list(source.labels)
    half = extract(net, source, 2, 0, ALONE, torch.bfloat16)
    assert half.vectors.dtype == torch.float32
    torch.testing.assert_close(half.vectors, maps.mean((2, 3)), rtol=0.02, atol=0.02)
    flat = extract(nn.Flatten(), source, 2, 0, ALONE)
    assert torch.equal(flat.vectors, source.images.flatten(1))


def _collect(world: World) -> None:
    for counts in ((2, 0), (1, 3)):
        rows = torch.full((counts[world.rank], 4), float(world.rank))
        expected = torch.tensor([0.0] * counts[0] + [1.0] * counts[1])
        mine = rows if len(rows) else torch.empty(0, 0)  # it cannot know the others' width
        assert torch.equal(gather_rows(mine), expected[:, None].expand(-1, 4))
        assert torch.equal(gather_rows(rows[:, 0].long()), expected.long())
    assert gather_rows(torch.empty(0, 0)).shape == (0, 0)
    assert add_up(torch.tensor([world.rank, 1]), world).tolist() == [1, 2]

    norm = nn.BatchNorm1d(2)
    norm.running_mean.fill_(world.rank)  # type: ignore[union-attr]
    with buffers_of_rank0(norm):
        assert norm.running_mean.tolist() == [0, 0]  # type: ignore[union-attr]
    assert norm.running_mean.tolist() == [world.rank] * 2  # type: ignore[union-attr]


def test_collectives_of_two_processes_and_of_one() -> None:
    in_processes(_collect)
    rows = torch.randn(3, 2)
    assert torch.equal(gather_rows(rows), rows) and torch.equal(add_up(rows, ALONE), rows)


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [(81, 263, 25.53, 36.62), (15, 148, 6.24, 16.05), (0, 20, 0, 16.11), (1, 29, 0.61, 17.18)],
)
def test_intervals_are_newcombes_table(correct: int, total: int, low: float, high: float) -> None:
    """Newcombe, Statistics in Medicine 17 (1998), table I, method 3."""
    assert Accuracy(correct, total).interval == pytest.approx((low, high), abs=5e-3)


@given(st.integers(1, 10_000), st.data())
def test_the_limits_solve_the_score_equation(total: int, data: st.DataObject) -> None:
    """A limit p is where the share is z standard deviations of a binomial away from p."""
    correct = data.draw(st.integers(0, total))
    share, z = correct / total, 1.959963984540054
    low, high = (limit / 100 for limit in Accuracy(correct, total).interval)
    assert 0 <= low <= share <= high <= 1 and low < high
    for limit in (low, high):
        variance = limit * (1 - limit) / total
        assert (share - limit) ** 2 == pytest.approx(z * z * variance, rel=1e-6, abs=1e-12)


def test_an_accuracy_is_in_percent() -> None:
    assert Accuracy(81, 263).percent == pytest.approx(30.798, abs=1e-3)
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
