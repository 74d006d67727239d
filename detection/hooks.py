"""Hooks of a fine-tuning: saving, preemption, writing, precise BN, evaluation; and its clock.

All processes have the same ones, but for writing.
"""

import time
from collections.abc import Callable
from typing import Any

import torch.distributed as dist
from detectron2.engine import HookBase, hooks
from torch import nn

from common.preemption import Preemption
from detection.checkpoint import RunCheckpointer
from detection.mapper import Mapper
from detection.stream import PRECISE_BN, Stream, derived_seed


class Saving(HookBase):
    """Save every ``period`` iterations, after the last, and where the job's end is announced.

    It ends the job there, and so is the last hook.
    """

    def __init__(self, checkpointer: RunCheckpointer, period: int, preemption: Preemption) -> None:
        self.checkpointer, self.period, self.preemption = checkpointer, period, preemption

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        announced = self.preemption.should_save()
        if announced or done % self.period == 0 or done == self.trainer.max_iter:
            self.checkpointer.save_step(done)
        if announced:
            self.preemption.exit_if_preempted()


class Writing(hooks.PeriodicWriter):
    """Detectron2's writer, which writes after a training once more: here only after a whole one.

    The iteration after which a job exits may have been written just now.
    """

    def after_train(self) -> None:
        if self.trainer.iter + 1 >= self.trainer.max_iter:
            super().after_train()
            return
        for writer in self._writers:
            writer.close()


class SharedPreciseBN(hooks.PreciseBN):
    """Precise BN with the same statistics in every process, those of the saved detector.

    Processes weigh an iteration by their own number of ROIs, and so would have statistics of
    their own in the ROI heads: all take the main process's. The images are the first of a stream
    of their own: after a resume the same.
    """

    def __init__(self, cfg: Any, model: nn.Module, mapper: Mapper, seed: int) -> None:
        stream = Stream(cfg, mapper, derived_seed(seed, PRECISE_BN), workers=0)
        super().__init__(cfg.TEST.EVAL_PERIOD, model, stream, cfg.TEST.PRECISE_BN.NUM_ITER)

    def after_step(self) -> None:
        if not self._disabled:  # without BN that is trained; Detectron2's asks too late
            super().after_step()

    def update_stats(self) -> None:
        self._data_iter = None
        super().update_stats()
        if dist.is_initialized() and not self._disabled:
            for buffer in self._model.buffers():
                dist.broadcast(buffer, 0)


class Clock:
    """Seconds spent on a run over all its attempts; kept in checkpoints."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    def state_dict(self) -> dict[str, float]:
        return {"seconds": self.seconds}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self._started = time.monotonic() - state["seconds"]


class PeriodicEval(HookBase):
    """Evaluate every ``period`` iterations but the last, which is evaluated anyway.

    One that is cut short is not done again.
    """

    def __init__(
        self,
        period: int,
        evaluate: Callable[[], dict[str, float]],
        checkpointer: RunCheckpointer,
        preemption: Preemption,
    ) -> None:
        self.period, self.evaluate = period, evaluate
        self.checkpointer, self.preemption = checkpointer, preemption

    def after_step(self) -> None:
        iteration = self.trainer.iter + 1
        if iteration % self.period == 0 and iteration != self.trainer.max_iter:
            self.checkpointer.save_step(iteration)  # this may last longer than a warning
            with self.preemption.immediate():
                found = self.evaluate()
            self.trainer.storage.put_scalars(**found, smoothing_hint=False)
