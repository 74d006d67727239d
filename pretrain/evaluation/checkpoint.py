"""How far an evaluation has come, and the files in its folder that say so."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from common.attempts import Attempt
from common.run_checkpoints import RunCheckpoints

FILE = "checkpoint.pth"


@dataclass
class Progress:
    """What a resumed evaluation has to know beside its tensors.

    Every random number is keyed by seed, epoch and image: there is no random state to keep.

    Attributes:
        step: steps taken.
        seconds: time spent, over all the times that the run was started.
        unreadable: training images that could not be read, in all epochs.
        loss: mean loss of the last epoch.
        top1: validation images of the last epoch whose class was guessed first.
        top5: likewise, among the first five guesses.
        evaluated: validation images that were read.
        unreadable_val: validation images that could not be read.
        validated: epochs before the last evaluation.
    """

    step: int = 0
    seconds: float = 0.0
    unreadable: int = 0
    loss: float = float("nan")
    top1: int = 0
    top5: int = 0
    evaluated: int = 0
    unreadable_val: int = 0
    validated: int = 0


def series(attempt: Attempt) -> RunCheckpoints:
    """The checkpoints of a run, the newest of which :data:`FILE` is a link to.

    A frozen backbone is not in them.
    """
    return RunCheckpoints(attempt, "checkpoint", ".pth")


def contents(
    trained: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    progress: Progress,
    losses: Tensor,
) -> dict[str, Any]:
    """What a checkpoint holds.

    Args:
        losses: of the steps since the epoch began, averaged over the processes.
    """
    return {
        "state_dict": trained.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
        "progress": dataclasses.asdict(progress),
        "losses": losses,
    }


def restore(
    state: dict[str, Any],
    trained: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
) -> tuple[Progress, Tensor]:
    """Load a checkpoint; say how far it had come, and the losses of its last epoch so far."""
    trained.load_state_dict(state["state_dict"])
    optimizer.load_state_dict(state["optimizer"])
    if state["scaler"] and scaler.is_enabled():  # not from or to a GPU without bf16
        scaler.load_state_dict(state["scaler"])
    return Progress(**state["progress"]), state["losses"]
