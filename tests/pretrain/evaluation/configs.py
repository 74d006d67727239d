"""Evaluations of seconds."""

from pathlib import Path
from typing import Any

from common.weights import Weights
from pretrain.evaluation.config import ClassifierConfig, LinearConfig, SemiConfig

SMALL: dict[str, Any] = {
    "image_size": 32, "epochs": 2, "batch_size": 8, "workers": 0, "device": "cpu", "log_every": 1,
}  # fmt: skip


def linear(data: Path | str, **changes: Any) -> ClassifierConfig:
    weights = changes.pop("weights", Weights("resnet18"))
    return LinearConfig(**{"data": str(data), **SMALL} | changes).resolve(weights)


def semi(data: Path | str, **changes: Any) -> ClassifierConfig:
    """Ten per cent of the labels, at rates that move the backbone."""
    rates = {"percent": 10, "backbone_lr": 0.05, "head_lr": 0.5}
    fields = {"data": str(data), **SMALL} | rates | changes
    return SemiConfig(**fields).resolve(changes.pop("weights", Weights("resnet18")))
