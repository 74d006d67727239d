"""Detectron2's schedules of the learning rate, and a polynomial one."""

from typing import Any

from detectron2 import solver
from detectron2.solver import LRMultiplier, WarmupParamScheduler
from fvcore.common.param_scheduler import ParamScheduler
from torch.optim import Optimizer

POLY = "WarmupPolyLR"
POWER = 0.9  # mmsegmentation's, configs/_base_/schedules


class PolyParamScheduler(ParamScheduler):
    """A polynomial fall from 1 to ``end``: mmcv's rule (mmcv/runner/hooks/lr_updater.py)."""

    def __init__(self, end: float) -> None:
        self.end = end

    def __call__(self, where: float) -> float:
        return float((1 - self.end) * (1 - where) ** POWER + self.end)


def build_lr_scheduler(cfg: Any, optimizer: Optimizer) -> Any:
    """Detectron2's scheduler of a config.

    ``SOLVER.LR_SCHEDULER_NAME`` may be "WarmupPolyLR" too: the rate falls by a polynomial of power
    0.9 to ``SOLVER.GAMMA`` times ``SOLVER.BASE_LR``. Detectron2 has no key for where it ends.
    """
    settings = cfg.SOLVER
    if settings.LR_SCHEDULER_NAME != POLY:
        return solver.build_lr_scheduler(cfg, optimizer)
    multiplier = WarmupParamScheduler(
        PolyParamScheduler(settings.GAMMA),
        settings.WARMUP_FACTOR,
        min(settings.WARMUP_ITERS / settings.MAX_ITER, 1.0),
        settings.WARMUP_METHOD,
    )
    return LRMultiplier(optimizer, multiplier, settings.MAX_ITER)


def steps_of(settings: Any) -> str:
    """The iterations at which the rate of a ``SOLVER`` falls, or the name of a smooth schedule."""
    name = str(settings.LR_SCHEDULER_NAME)
    return ", ".join(map(str, settings.STEPS)) if name == "WarmupMultiStepLR" else name
