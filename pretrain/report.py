"""What a pre-training run tells while it runs."""

import logging
import time
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from common.distributed import World
from common.metrics import MetricsLog

log = logging.getLogger("pretrain")


class Reporter:
    """metrics.jsonl, TensorBoard and log lines, of the main process only."""

    def __init__(self, folder: Path, step: int, world: World) -> None:
        self.active = world.is_main
        if self.active:
            self.lines = MetricsLog(folder / "metrics.jsonl", step)
            self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=step)
            self.last = step - 1, time.monotonic()

    def write(self, step: int, row: dict[str, Any], batch_size: int) -> None:
        """One line about a step, with the images per second since the line before."""
        if self.active:
            now = time.monotonic()
            images = batch_size * (step - self.last[0])
            row |= {"images_per_s": round(images / (now - self.last[1]), 2)}
            self.last = step, now
            self.lines.write(row)
            for name, value in row.items():
                if name not in ("step", "epoch"):
                    self.board.add_scalar(name, value, step)
            log.info(
                "epoch %d step %d: %s",
                row["epoch"],
                step,
                "  ".join(f"{k} {v:.4g}" for k, v in row.items() if k not in ("step", "epoch")),
            )

    def epoch(self, epoch: int, epochs: int, step: int, mean_loss: float) -> None:
        """One line about a whole epoch."""
        if self.active:
            self.lines.write({"step": step, "epoch": epoch - 1, "epoch_loss": mean_loss})
            self.board.add_scalar("epoch_loss", mean_loss, step)
            log.info("epoch %d of %d done: mean loss %.4f", epoch, epochs, mean_loss)

    def close(self) -> None:
        """Close the files."""
        if self.active:
            self.lines.close()
            self.board.close()
