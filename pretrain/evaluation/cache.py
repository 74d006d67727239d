"""Validation features of a frozen backbone, computed once for all epochs and all resumes."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from common import checkpoints
from common.distributed import World
from common.errors import UserError
from pretrain.evaluation.features import Features
from pretrain.evaluation.ranks import add_up

FILE = "val_features.pth"

log = logging.getLogger("pretrain.evaluation")


def cached(
    folder: Path, made_from: dict[str, Any], world: World, compute: Callable[[], Features]
) -> Features:
    """This process's share of the features: from the folder, or else computed and put there.

    Training views are random, so that only features of the validation images can be kept.

    Args:
        folder: the run folder.
        made_from: what the features depend on; others are not used.
        world: this process; all processes call this together.
        compute: this process's share, where there is nothing to be read.
    """
    path = folder / FILE
    saved = _read(path, made_from)
    # All read or all compute: a node may not see a new file of another's yet.
    if int(add_up(torch.tensor(int(saved is None)), world)):
        log.info("computing the validation features")
        whole = compute().gathered(world)
        saved = {
            "made_from": made_from,
            "vectors": whole.vectors.cpu(),
            "labels": whole.labels.cpu(),
            "skipped": whole.skipped,
        }
        if world.is_main:
            checkpoints.save(path, saved)
    assert saved is not None
    share = slice(world.rank, None, world.size)
    return Features(
        saved["vectors"][share].to(world.device),
        saved["labels"][share].to(world.device),
        saved["skipped"] if world.is_main else 0,
    )


def _read(path: Path, made_from: dict[str, Any]) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        saved: dict[str, Any] = checkpoints.load(path)
    except UserError as error:
        log.warning("%s They are computed again.", error)
        return None
    return saved if saved["made_from"] == made_from else None
