"""What a checkpoint holds: LEWEL's layout, and what a resume needs beside it.

Each is a file of its own (``common.run_checkpoints``); ``checkpoint.pth.tar`` is a link to the
newest.
"""

import dataclasses
from typing import Any

from common.attempts import Attempt
from common.run_checkpoints import RunCheckpoints
from pretrain.config import ResolvedConfig
from pretrain.learner import Learner
from pretrain.method import Method
from pretrain.progress import Progress

FILE = "checkpoint.pth.tar"


def series(attempt: Attempt) -> RunCheckpoints:
    """The checkpoints of a run."""
    return RunCheckpoints(attempt, "checkpoint", ".pth.tar")


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
        "recipe": config.unpublished(),
        "config": dataclasses.asdict(config),
        "progress": dataclasses.asdict(progress),
        "ranks": ranks,
    }


def restore(state: dict[str, Any], learner: Learner) -> Progress:
    """Load a checkpoint into model, optimizer and scaler; say how far it had come."""
    tensors = {k.removeprefix("module."): v for k, v in state["state_dict"].items()}
    learner.model.load_state_dict(tensors)
    learner.optimizer.load_state_dict(state["optimizer"])
    if state["scaler"] and learner.scaler.is_enabled():  # not from or to a GPU without bf16
        learner.scaler.load_state_dict(state["scaler"])
    return Progress(**state["progress"])
