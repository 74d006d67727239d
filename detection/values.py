"""Values of a config that Detectron2 finds wrong only in the job, or never."""

from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.layers import get_norm
from detectron2.modeling import (
    BACKBONE_REGISTRY,
    META_ARCH_REGISTRY,
    PROPOSAL_GENERATOR_REGISTRY,
    ROI_BOX_HEAD_REGISTRY,
    ROI_HEADS_REGISTRY,
    ROI_MASK_HEAD_REGISTRY,
    SEM_SEG_HEADS_REGISTRY,
)

from common.errors import UserError
from detection.schedule import build_lr_scheduler

COUNTS = ("MAX_ITER", "CHECKPOINT_PERIOD", "IMS_PER_BATCH")
FLIPS = ("horizontal", "vertical", "none")
REGISTRIES = {
    "META_ARCHITECTURE": META_ARCH_REGISTRY,
    "BACKBONE.NAME": BACKBONE_REGISTRY,
    "PROPOSAL_GENERATOR.NAME": PROPOSAL_GENERATOR_REGISTRY,
    "ROI_HEADS.NAME": ROI_HEADS_REGISTRY,
    "ROI_BOX_HEAD.NAME": ROI_BOX_HEAD_REGISTRY,
    "ROI_MASK_HEAD.NAME": ROI_MASK_HEAD_REGISTRY,
    "SEM_SEG_HEAD.NAME": SEM_SEG_HEADS_REGISTRY,
}
# Known beside the registered: no head, as in C4, and proposals of a file.
UNREGISTERED = {"ROI_BOX_HEAD.NAME": "", "PROPOSAL_GENERATOR.NAME": "PrecomputedProposals"}


def check_values(cfg: Any, eval_only: bool = False) -> None:
    """Raise a UserError unless Detectron2 can work with a config's values and does as they say."""
    _check_names(cfg.MODEL)
    _check_norms(cfg.MODEL)
    if cfg.TEST.AUG.ENABLED:
        raise UserError(
            "TEST.AUG.ENABLED is True, but what is evaluated here is the detector without "
            "test-time augmentation; set it to False."
        )
    if not eval_only:
        _check_training(cfg)
        _check_schedule(cfg)


def _check_names(model: Any) -> None:
    for key, registry in REGISTRIES.items():
        node, _, leaf = key.rpartition(".")
        name = (model[node] if node else model)[leaf]
        if name not in registry and name != UNREGISTERED.get(key):
            raise UserError(
                f"MODEL.{key} is {name}, which Detectron2 does not know; it knows "
                f"{', '.join(sorted(known for known, _ in registry))}."
            )


def _check_norms(model: Any) -> None:
    for key, node in model.items():
        norm = node.get("NORM", "") if isinstance(node, CfgNode) else ""
        try:
            get_norm(norm, 32)  # the fewest channels that its GroupNorm has groups for
        except KeyError as error:
            raise UserError(
                f"MODEL.{key}.NORM is {norm}, which is no norm of Detectron2's; choose BN, SyncBN, "
                'naiveSyncBN, FrozenBN, GN or "".'
            ) from error


def _check_training(cfg: Any) -> None:
    counts = {f"SOLVER.{key}": cfg.SOLVER[key] for key in COUNTS}
    if cfg.TEST.PRECISE_BN.ENABLED:
        counts["TEST.PRECISE_BN.NUM_ITER"] = cfg.TEST.PRECISE_BN.NUM_ITER
    for key, value in counts.items():
        if value < 1:
            raise UserError(f"{key} is {value}; it must be at least 1.")
    flip, sampler = cfg.INPUT.RANDOM_FLIP, cfg.DATALOADER.SAMPLER_TRAIN
    if flip not in FLIPS:
        raise UserError(f"INPUT.RANDOM_FLIP is {flip}; choose one of {', '.join(FLIPS)}.")
    if not sampler.endswith("TrainingSampler"):
        raise UserError(
            f"DATALOADER.SAMPLER_TRAIN is {sampler}; choose one of Detectron2's, such as "
            "TrainingSampler or RepeatFactorTrainingSampler."
        )
    if not cfg.DATASETS.TRAIN:
        raise UserError("DATASETS.TRAIN is empty; name a dataset to train on.")


def _check_schedule(cfg: Any) -> None:
    tried = cfg.clone()
    # Detectron2 leaves later ones out, and warns of it in the job.
    tried.SOLVER.STEPS = tuple(step for step in cfg.SOLVER.STEPS if step <= cfg.SOLVER.MAX_ITER)
    try:
        build_lr_scheduler(tried, torch.optim.SGD([torch.zeros(1)], lr=1.0))
    except (AssertionError, ValueError, ZeroDivisionError) as error:
        raise UserError(
            "SOLVER.LR_SCHEDULER_NAME, STEPS, WARMUP_METHOD and what belongs to them make no "
            f"schedule of Detectron2's: {' '.join(str(error).split()) or type(error).__name__}."
        ) from error
