"""The checkpoints of a run: LEWEL's layout, what a resume needs beside it, and two of them.

Each is a file of its own, named by its step; ``checkpoint.pth.tar`` is a link to the newest.
"""

import dataclasses
import logging
import os
import re
from pathlib import Path
from typing import Any

from common import checkpoints
from common.errors import UserError
from pretrain.config import ResolvedConfig
from pretrain.learner import Learner
from pretrain.method import Method
from pretrain.progress import Progress

FILE = "checkpoint.pth.tar"
KEPT = 2

log = logging.getLogger("pretrain")


def contents(
    method: Method,
    config: ResolvedConfig,
    learner: Learner,
    progress: Progress,
    ranks: list[dict[str, Any]],
    epoch: int,
) -> dict[str, Any]:
    """What a checkpoint holds: only tensors, numbers and words, in the release's layout.

    Args:
        ranks: what each process has of its own; :meth:`pretrain.progress.Totals.state`.
        epoch: whole epochs that are done.
    """
    return {
        "epoch": epoch,
        "arch": method.archs[config.norm],
        "state_dict": {f"module.{k}": v for k, v in learner.model.state_dict().items()},
        "best_acc1": progress.best_knn,
        "optimizer": learner.optimizer.state_dict(),
        "scaler": learner.scaler.state_dict(),
        "title": method.title,
        "config": dataclasses.asdict(config),
        "progress": dataclasses.asdict(progress),
        "ranks": ranks,
    }


def save(folder: Path, step: int, state: dict[str, Any]) -> None:
    """Write the checkpoint of ``step``, point the link to it, delete all but the newest two."""
    name = f"checkpoint_{step:09d}.pth.tar"
    checkpoints.save(folder / name, state)
    link = folder / f".{FILE}.link"
    link.unlink(missing_ok=True)
    link.symlink_to(name)
    os.replace(link, folder / FILE)
    for path in _newest_first(folder)[KEPT:]:
        path.unlink()


def tidy(folder: Path, step: int) -> None:
    """Delete what a killed job left: half a file, and checkpoints newer than the one loaded.

    For the main process, once it has loaded the checkpoint of ``step``.
    """
    for path in folder.glob(".checkpoint_*"):
        path.unlink()
    for path in _newest_first(folder):
        if path.name > f"checkpoint_{step:09d}.pth.tar":
            path.unlink()


def load_newest(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint that can be read, or None if there is none yet.

    Raises:
        UserError: if there are checkpoints, and none of them can be read.
    """
    paths = _newest_first(folder)
    for path in paths:
        try:
            return dict(checkpoints.load(path))
        except UserError as error:
            log.warning("%s Falling back to the checkpoint before it.", error)
    if paths:
        raise UserError(f"no checkpoint in {folder} can be read; --fresh starts the run again.")
    return None


def restore(state: dict[str, Any], learner: Learner) -> Progress:
    """Load a checkpoint into model, optimizer and scaler; say how far it had come."""
    tensors = {k.removeprefix("module."): v for k, v in state["state_dict"].items()}
    learner.model.load_state_dict(tensors)
    learner.optimizer.load_state_dict(state["optimizer"])
    if state["scaler"] and learner.scaler.is_enabled():  # not from or to a GPU without bf16
        learner.scaler.load_state_dict(state["scaler"])
    return Progress(**state["progress"])


def _newest_first(folder: Path) -> list[Path]:
    named = (re.fullmatch(r"checkpoint_\d+\.pth\.tar", path.name) for path in folder.iterdir())
    return sorted((folder / match.string for match in named if match), reverse=True)


def newest_name(folder: Path) -> str:
    """The newest checkpoint's file name, or what to say where there is none."""
    names = [path.name for path in _newest_first(folder)]
    return names[0] if names else "none yet"
