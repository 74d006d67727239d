"""A run in this process, or in one of several, as its job would make it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from common.distributed import World
from common.incarnations import Incarnation
from common.notice import Notice
from common.running import Run

ALONE = World(0, 1, 0, 1, torch.device("cpu"))


def run_in(folder: Path, world: World = ALONE) -> Run:
    """The first incarnation of a run that nobody interrupts."""
    folder.mkdir(parents=True, exist_ok=True)
    first = Incarnation(folder)
    return Run(folder, world, first, Notice(world, first, lambda: None))


class Ended(BaseException):
    """Stands for the end that a cluster brings to a job, once it has saved."""


def told_after(step: int, patch: pytest.MonkeyPatch) -> None:
    """Let a job be told of its end, as by Slurm, while it takes step ``step`` (from 0)."""
    asked: list[int] = []

    def says_save(notice: Notice) -> bool:
        asked.append(1)
        return len(asked) == step + 1

    def saved(notice: Notice, *_: Any) -> None:
        if len(asked) == step + 1:
            raise Ended

    patch.setattr(Notice, "says_save", says_save)
    patch.setattr(Notice, "saved", saved)
