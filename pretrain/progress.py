"""How far a run has come: what all processes share, and what each has of its own."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from common.distributed import World


@dataclass
class Progress:
    """What all processes agree on.

    Attributes:
        step: steps taken.
        loss: mean loss of the last whole epoch.
        seconds: time spent, over all the times that the run was started.
        unreadable: images that could not be read, up to the last whole epoch.
        best_knn: the best kNN accuracy so far, in percent.
        evaluated: whole epochs before the last kNN accuracy; -1 before there is one.
    """

    step: int = 0
    loss: float = float("nan")
    seconds: float = 0.0
    unreadable: int = 0
    best_knn: float = 0.0
    evaluated: int = -1


class Totals:
    """One process's sums over an epoch, which stay on its device, and its random stream.

    Attributes:
        loss: sum of the steps' losses, float64.
        skipped: images that could not be read.
        first_bad: the first step whose loss was not finite, or -1.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.loss = torch.zeros((), dtype=torch.float64, device=world.device)
        self.first_bad = torch.full((), -1, device=world.device)
        self.skipped = 0

    def add(self, step: int, loss: Tensor, skipped: int) -> None:
        """Count a step; does not wait for the device."""
        self.loss += loss
        bad = ~torch.isfinite(loss) & (self.first_bad < 0)
        self.first_bad = torch.where(bad, step, self.first_bad)
        self.skipped += skipped

    def close_epoch(self) -> tuple[float, int]:
        """Sum of losses and of skipped images over all processes; both begin again at zero."""
        sums = torch.stack([self.loss, torch.full_like(self.loss, self.skipped)])
        if dist.is_initialized():
            dist.all_reduce(sums)
        self.loss.zero_()
        self.skipped = 0
        loss, skipped = sums.tolist()
        return loss, round(skipped)

    def state(self) -> dict[str, Any]:
        """Of this process: sums and random streams."""
        state = {
            "loss": self.loss.item(),
            "skipped": self.skipped,
            "rng": torch.get_rng_state(),
        }
        if self.world.device.type == "cuda":
            state["cuda_rng"] = torch.cuda.get_rng_state(self.world.device)
        return state

    def restore(self, ranks: list[dict[str, Any]]) -> bool:
        """Take this process's state from a checkpoint's; False if there were fewer or more.

        Then the first process has the mean loss of them all, for as many as there are now, and
        the random streams are those of no process.
        """
        if len(ranks) != self.world.size:
            if self.world.is_main:
                mean = sum(rank["loss"] for rank in ranks) / len(ranks)
                self.loss.fill_(mean * self.world.size)
                self.skipped = sum(rank["skipped"] for rank in ranks)
            return False
        mine = ranks[self.world.rank]
        self.loss.fill_(mine["loss"])
        self.skipped = mine["skipped"]
        torch.set_rng_state(mine["rng"])
        if "cuda_rng" in mine and self.world.device.type == "cuda":
            torch.cuda.set_rng_state(mine["cuda_rng"], self.world.device)
        return True


def of_all_processes(value: Any) -> list[Any]:
    """A value of every process, in their order."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values
