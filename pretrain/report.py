"""Reports of a run that trains: metrics.jsonl, TensorBoard, log lines and speed."""

import logging
import resource
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.utils.tensorboard import SummaryWriter

from common.distributed import World
from common.metrics import MetricsLog

log = logging.getLogger("pretrain")
T = TypeVar("T")


class Reporter:
    """metrics.jsonl, TensorBoard and log lines, of the main process only; ``step`` comes next."""

    def __init__(
        self, folder: Path, step: int, total_steps: int, batch_size: int, world: World
    ) -> None:
        self.world, self.total_steps, self.batch_size = world, total_steps, batch_size
        self._waited = 0.0
        self._last = step - 1, time.monotonic()
        if world.is_main:
            self.lines = MetricsLog(folder / "metrics.jsonl", step)
            self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=step)

    def timed(self, batches: Iterable[T]) -> Iterator[T]:
        """The batches, and a count of the time that the training waits for them."""
        iterator = iter(batches)
        while True:
            started = time.monotonic()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            self._waited += time.monotonic() - started
            yield batch

    def pause(self) -> None:
        """Forget the time since the last line, which was not spent on training."""
        self._last = self._last[0], time.monotonic()
        self._waited = 0.0

    def write(self, row: dict[str, Any]) -> None:
        """A line about a step: ``row``, and the speed of the steps since the line before."""
        if self.world.is_main:
            row = row | self._speed(row["step"])
            self._write(f"epoch {row['epoch']} step {row['step']}", row)

    def evaluated(self, row: dict[str, Any]) -> None:
        """A line about an epoch or an evaluation; ``step`` is the last one before it."""
        if self.world.is_main:
            self._write(f"after epoch {row['epoch'] + 1}", row)

    def _speed(self, step: int) -> dict[str, float]:
        last, then = self._last
        seconds = time.monotonic() - then
        speed = {
            "images_per_s": round(self.batch_size * (step - last) / seconds, 2),
            "data_wait": round(self._waited / seconds, 3),  # share of the time
            "memory_gib": round(_memory(self.world.device) / 2**30, 2),
            "eta_s": round((self.total_steps - step - 1) * seconds / (step - last)),
        }
        self._last, self._waited = (step, time.monotonic()), 0.0
        return speed

    def _write(self, when: str, row: dict[str, Any]) -> None:
        self.lines.write(row)
        values = {name: value for name, value in row.items() if name not in ("step", "epoch")}
        for name, value in values.items():
            self.board.add_scalar(name, value, max(row["step"], 0))
        log.info("%s: %s", when, "  ".join(f"{k} {v:.4g}" for k, v in values.items()))

    def close(self) -> None:
        """Close the files."""
        if self.world.is_main:
            self.lines.close()
            self.board.close()


def _memory(device: torch.device) -> int:
    """The most bytes that this process has had on its GPU, or in main memory without one."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
