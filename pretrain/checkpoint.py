"""LEWEL checkpoints: the release's layout, with what a resume needs beside it."""

import dataclasses
from pathlib import Path

import torch

from common import checkpoints
from pretrain.config import METHOD, ResolvedConfig
from pretrain.lewel import LEWEL

FILE = "checkpoint.pth.tar"
ARCH = {"eman": "LEWELB_EMAN", "syncbn": "LEWELB"}


@dataclasses.dataclass
class Progress:
    """How far a run has come.

    Attributes:
        step: steps taken.
        loss: mean loss of the last whole epoch.
        seconds: time spent, over all the times that the run was started.
        unreadable: images that could not be read.
    """

    step: int = 0
    loss: float = float("nan")
    seconds: float = 0.0
    unreadable: int = 0


def save(
    folder: Path,
    config: ResolvedConfig,
    model: LEWEL,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    progress: Progress,
    epoch: int,
) -> None:
    """Write ``checkpoint.pth.tar`` after ``epoch`` whole epochs, atomically."""
    checkpoints.save(
        folder / FILE,
        {
            "epoch": epoch,
            "arch": ARCH[config.norm],
            "state_dict": {f"module.{k}": v for k, v in model.state_dict().items()},
            "best_acc1": 0.0,
            "optimizer": optimizer.state_dict(),
            "scaler": scaler.state_dict(),
            "method": METHOD,
            "config": dataclasses.asdict(config),
            "progress": dataclasses.asdict(progress),
        },
    )


def resume(
    folder: Path,
    model: LEWEL,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
) -> Progress:
    """Load ``checkpoint.pth.tar`` if the folder has one; say how far it had come."""
    if not (folder / FILE).exists():
        return Progress()
    state = checkpoints.load(folder / FILE)
    model.load_state_dict({k.removeprefix("module."): v for k, v in state["state_dict"].items()})
    optimizer.load_state_dict(state["optimizer"])
    if state["scaler"] and scaler.is_enabled():  # not from or to a GPU without bf16
        scaler.load_state_dict(state["scaler"])
    return Progress(**state["progress"])
