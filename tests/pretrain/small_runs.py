"""Pre-trainings of seconds, and what they leave."""

from pathlib import Path
from typing import Any

from common.metrics import read_lines
from pretrain.config import PretrainConfig, ResolvedConfig


def small(**changes: Any) -> ResolvedConfig:
    """A run of seconds on the embedded data."""
    fields = {
        "data": "demo", "backbone": "resnet18", "epochs": 2, "batch_size": 8, "image_size": 32,
        "proj_dim": 16, "hidden_dim": 32, "workers": 1, "log_every": 1, "lr": 0.5, "device": "cpu",
        "knn_every": 0,
    }  # fmt: skip
    return PretrainConfig(**fields | changes).resolve()  # type: ignore[arg-type]


def losses(folder: Path) -> list[float]:
    return [row["loss"] for row in read_lines(folder / "metrics.jsonl") if "loss" in row]
