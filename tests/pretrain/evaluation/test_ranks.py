"""Collectives of an evaluation, between processes that hold different numbers of rows."""

import torch
from torch import nn

from common.distributed import World
from pretrain.evaluation.ranks import add_up, buffers_of_rank0, gather_rows
from tests.processes import in_processes


def _collect(world: World) -> None:
    for counts in ((2, 0), (1, 3)):
        rows = torch.full((counts[world.rank], 4), float(world.rank))
        expected = torch.tensor([0.0] * counts[0] + [1.0] * counts[1])
        mine = rows if len(rows) else torch.empty(0, 0)  # it cannot know the others' width
        assert torch.equal(gather_rows(mine, world), expected[:, None].expand(-1, 4))
        assert torch.equal(gather_rows(rows[:, 0].long(), world), expected.long())
    assert gather_rows(torch.empty(0, 0), world).shape == (0, 0)
    assert add_up(torch.tensor([world.rank, 1]), world).tolist() == [1, 2]

    norm = nn.BatchNorm1d(2)
    norm.running_mean.fill_(world.rank)  # type: ignore[union-attr]
    with buffers_of_rank0(norm, world):
        assert norm.running_mean.tolist() == [0, 0]  # type: ignore[union-attr]
    assert norm.running_mean.tolist() == [world.rank] * 2  # type: ignore[union-attr]


def test_two_processes() -> None:
    in_processes(_collect)


def test_one_process_needs_no_group() -> None:
    alone = World(0, 1, 0, 1, torch.device("cpu"))
    rows = torch.randn(3, 2)
    assert gather_rows(rows, alone) is rows
    assert torch.equal(add_up(rows, alone), rows)
