"""A run in this process, or in one of several, as its job would make it."""

from pathlib import Path

import pytest
import torch

from common import attempts
from common.attempts import Attempt
from common.distributed import World
from common.preemption import Preemption
from common.running import Run

ALONE = World(0, 1, 0, 1, torch.device("cpu"))


def run_in(folder: Path, world: World = ALONE) -> Run:
    """The next attempt of a run that nobody interrupts."""
    folder.mkdir(parents=True, exist_ok=True)
    return Run(folder, world, begin(folder, world), Preemption())


def begin(folder: Path, world: World) -> Attempt:
    """The next attempt in the main process; elsewhere one that is never the newest."""
    return attempts.begin(folder) if world.is_main else Attempt(folder, 1, "not ours")


def attempt(folder: Path, number: int = 1) -> Attempt:
    """One of the copies of a run's job; of a run that is started so often, if need be."""
    while attempts.count(folder) < number:
        attempts.begin(folder)
    mark = folder / attempts.FOLDER / f"{number:04d}.json"
    return Attempt(folder, number, mark.read_text())


class Ended(BaseException):
    """Stands for the end that a cluster brings to a job, once it has saved."""


def told_after(step: int, patch: pytest.MonkeyPatch) -> None:
    """Let a job be told of its end, as by Slurm, while it takes step ``step`` (from 0)."""
    asked: list[int] = []

    def should_save(preemption: Preemption) -> bool:
        asked.append(1)
        return len(asked) == step + 1

    def exit_if_preempted(preemption: Preemption) -> None:
        if len(asked) == step + 1:
            raise Ended

    patch.setattr(Preemption, "should_save", should_save)
    patch.setattr(Preemption, "exit_if_preempted", exit_if_preempted)
