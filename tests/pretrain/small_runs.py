"""Trainings of seconds, and what they leave."""

from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn
from torchvision.models._api import register_model

from common.metrics import read_lines
from common.weights import Weights
from pretrain.config import PretrainConfig, ResolvedConfig
from pretrain.evaluation.config import ClassifierConfig, LinearConfig, SemiConfig

CLASSIFIER: dict[str, Any] = {
    "image_size": 32, "epochs": 2, "batch_size": 8, "workers": 0, "device": "cpu", "log_every": 1,
}  # fmt: skip


@register_model("tiny")
def tiny(norm_layer: type[nn.Module] = nn.BatchNorm2d) -> nn.Module:
    """A network of a few weights with a ResNet's children; checkpoints of real ones take long."""
    children = {
        "conv1": nn.Conv2d(3, 16, 7, stride=4, padding=3, bias=False),
        "bn1": norm_layer(16),
        "relu": nn.ReLU(inplace=True),
        "layer1": nn.Sequential(nn.Conv2d(16, 32, 3, stride=2, padding=1), norm_layer(32)),
        "avgpool": nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        "fc": nn.Linear(32, 10),
    }
    return nn.Sequential(OrderedDict(children))


def small(**changes: Any) -> ResolvedConfig:
    """A pre-training of seconds on the embedded data."""
    fields = {
        "data": "demo", "backbone": "resnet18", "epochs": 2, "batch_size": 8, "image_size": 32,
        "proj_dim": 16, "hidden_dim": 32, "workers": 1, "log_every": 1, "lr": 0.5, "device": "cpu",
        "knn_every": 0,
    }  # fmt: skip
    config = PretrainConfig(**fields | changes).resolve()  # type: ignore[arg-type]
    return replace(config, backbone="tiny")


def linear(data: Path | str, **changes: Any) -> ClassifierConfig:
    """A linear evaluation of a random ResNet-18."""
    weights = changes.pop("weights", Weights("resnet18"))
    return LinearConfig(**{"data": str(data), **CLASSIFIER} | changes).resolve(weights)


def semi(data: Path | str, **changes: Any) -> ClassifierConfig:
    """Ten per cent of the labels, at rates that move the backbone."""
    rates = {"percent": 10, "backbone_lr": 0.05, "head_lr": 0.5}
    fields = {"data": str(data), **CLASSIFIER} | rates | changes
    return SemiConfig(**fields).resolve(changes.pop("weights", Weights("resnet18")))


def losses(folder: Path) -> list[float]:
    """The loss of every logged step."""
    return [row["loss"] for row in read_lines(folder / "metrics.jsonl") if "loss" in row]
