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
    return Run(folder, world, begin(folder, world), Notice())


def begin(folder: Path, world: World) -> Incarnation:
    """The next incarnation in the main process; elsewhere one that is never the newest."""
    return incarnations.begin(folder) if world.is_main else Incarnation(folder, 1, "not ours")


def incarnation(folder: Path, number: int = 1) -> Incarnation:
    """One of the copies of a run's job; of a run that is started so often, if need be."""
    while incarnations.count(folder) < number:
        incarnations.begin(folder)
    mark = folder / incarnations.FOLDER / f"{number:04d}.json"
    return Incarnation(folder, number, mark.read_text())


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
