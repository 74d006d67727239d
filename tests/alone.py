"""A run in this process, or in one of several, as its job would make it."""

from pathlib import Path

import pytest
import torch

from common import incarnations
from common.distributed import World
from common.incarnations import Incarnation
from common.notice import Notice
from common.running import Run

ALONE = World(0, 1, 0, 1, torch.device("cpu"))


def run_in(folder: Path, world: World = ALONE) -> Run:
    """The next incarnation of a run that nobody interrupts."""
    folder.mkdir(parents=True, exist_ok=True)
    mine = incarnations.begin(folder) if world.is_main else Incarnation(folder)
    return Run(folder, world, mine, Notice())


class Ended(BaseException):
    """Stands for the end that a cluster brings to a job, once it has saved."""


def told_after(step: int, patch: pytest.MonkeyPatch) -> None:
    """Let a job be told of its end, as by Slurm, while it takes step ``step`` (from 0)."""
    asked: list[int] = []

    def due(notice: Notice) -> bool:
        asked.append(1)
        return len(asked) == step + 1

    def leave_if_told(notice: Notice) -> None:
        if len(asked) == step + 1:
            raise Ended

    patch.setattr(Notice, "due", due)
    patch.setattr(Notice, "leave_if_told", leave_if_told)
