"""Sums over an epoch, in as many processes as there are, and after a change of their number."""

import pytest
import torch

from common.distributed import World
from pretrain.progress import Totals


def world(size: int, rank: int = 0) -> World:
    return World(rank, size, rank, size, torch.device("cpu"))


def state(loss: float, skipped: int) -> dict[str, object]:
    totals = Totals(world(1))
    totals.add(0, torch.tensor(loss), skipped)
    return totals.state()


def test_the_same_number_of_processes_gets_its_own_sums_and_stream_back() -> None:
    ranks = []
    for loss in (1.5, 2.5):
        torch.manual_seed(int(loss))
        ranks.append(state(loss, skipped=1))
    totals = Totals(world(2, rank=1))
    assert totals.restore(ranks)
    assert (totals.loss.item(), totals.skipped) == (2.5, 1)
    expected = torch.rand(2, generator=torch.Generator().manual_seed(2))
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize("size", [1, 2, 8])
def test_a_mean_stays_what_it_was_with_another_number_of_processes(size: int) -> None:
    """Four processes with a sum of 6 after 3 steps: the mean of a step is 2."""
    ranks = [state(6.0, skipped=1) for _ in range(4)]
    new = [Totals(world(size, rank)) for rank in range(size)]
    assert [totals.restore(ranks) for totals in new] == [size == 4] * size
    assert sum(totals.loss.item() for totals in new) / size / 3 == pytest.approx(2.0)
    assert sum(totals.skipped for totals in new) == 4


def test_the_first_step_that_was_not_finite_is_kept() -> None:
    totals = Totals(world(1))
    for step, loss in enumerate([1.0, float("inf"), float("nan"), 1.0]):
        totals.add(step, torch.tensor(loss), 0)
    assert totals.first_bad.item() == 1
