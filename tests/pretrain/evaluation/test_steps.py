"""The arithmetic of the loop, on images whose features are known."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from common.metrics import read_lines
from pretrain.evaluation import classifier
from pretrain.evaluation.classifier import Evaluation, classify
from pretrain.evaluation.splits import Splits
from tests.alone import run_in
from tests.pretrain.evaluation.configs import linear, semi
from tests.pretrain.evaluation.sources import TensorSource


class Pixels(nn.Module):
    """A "backbone" whose features are an image's first pixel: (b, 3, h, w) -> (b, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, images: Tensor) -> Tensor:
        return images[:, :, 0, 0] * self.scale


def on_tensors(
    monkeypatch: pytest.MonkeyPatch, training: TensorSource, validation: TensorSource
) -> None:
    """Make evaluations use :class:`Pixels` and these images."""
    monkeypatch.setattr(classifier, "open_splits", lambda _: Splits(training, validation, "all"))
    monkeypatch.setattr(classifier, "load_backbone", lambda _: Pixels())
    monkeypatch.setattr(classifier, "feature_dim", lambda _: 3)


def points(count: int, seed: int, name: str, spread: float) -> TensorSource:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    images = torch.eye(3)[labels] + spread * torch.randn(count, 3, generator=generator)
    return TensorSource(images[:, :, None, None], labels.tolist(), name)


def numpy_sgd(
    weight: np.ndarray, batches: list[tuple[np.ndarray, np.ndarray]], rates: list[float], wd: float
) -> tuple[np.ndarray, np.ndarray]:
    """Softmax regression from a zero bias: SGD with momentum 0.9, written out."""
    weight, bias = weight.astype(np.float64), np.zeros(len(weight))
    momentum_w, momentum_b = np.zeros_like(weight), np.zeros_like(bias)
    for (x, labels), rate in zip(batches, rates, strict=True):
        logits = x @ weight.T + bias
        p = np.exp(logits - logits.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        error = (p - np.eye(len(weight))[labels]) / len(x)
        momentum_w = 0.9 * momentum_w + error.T @ x + wd * weight
        momentum_b = 0.9 * momentum_b + error.sum(0) + wd * bias
        weight, bias = weight - rate * momentum_w, bias - rate * momentum_b
    return weight, bias


def test_steps_are_those_of_softmax_regression(
    tmp_path: Path, demo_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five epochs of two steps: the rate falls at the fourth and at the fifth."""
    training = points(12, 0, "train", 0.3)
    on_tensors(monkeypatch, training, points(6, 1, "val", 0.3))
    config = linear("demo", batch_size=6, epochs=5, lr=0.7, weight_decay=0.01, image_size=1)
    run = Evaluation(config, run_in(tmp_path))
    start = run.model.head.weight.detach().clone().numpy()
    assert abs(start).max() < 0.05 and not run.model.head.bias.any()  # N(0, 0.01), and 0
    order = [[index for _, index in keys] for keys in run.batches]
    run.run()
    batches = [
        (training.images[i, :, 0, 0].double().numpy(), np.array(training.labels)[i]) for i in order
    ]
    rates = [0.7] * 6 + [0.07] * 2 + [0.007] * 2
    weight, bias = numpy_sgd(start, batches, rates, 0.01)
    np.testing.assert_allclose(run.model.head.weight.detach().numpy(), weight, atol=2e-6)
    np.testing.assert_allclose(run.model.head.bias.detach().numpy(), bias, atol=2e-6)
    logged = [row["lr"] for row in read_lines(tmp_path / "metrics.jsonl") if "lr" in row]
    assert logged == pytest.approx(rates)


def test_separable_features_are_separated(
    tmp_path: Path, demo_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_tensors(monkeypatch, points(60, 0, "train", 0.1), points(30, 1, "val", 0.1))
    config = linear("demo", batch_size=12, epochs=20, lr=2.0, image_size=1)
    metrics = classify(config, tmp_path)
    assert metrics["top1"] == metrics["top5"] == 100 and metrics["loss"] < 0.3
    # Nothing wrong of 30: the lower limit is n / (n + z squared).
    assert metrics["top1_low"] == pytest.approx(100 * 30 / (30 + 1.96**2), abs=1e-3)
    assert metrics["top1_high"] == 100


def test_only_semi_moves_the_backbone_and_each_part_at_its_rate(
    tmp_path: Path, demo_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_tensors(monkeypatch, points(12, 0, "train", 0.3), points(6, 1, "val", 0.3))
    # A rate that moves nothing beside one that does: 1e-12 of float32's ones is lost.
    for backbone_lr, head_lr in ((1e-12, 0.5), (0.5, 1e-12)):
        config = semi("demo", batch_size=12, backbone_lr=backbone_lr, head_lr=head_lr, epochs=1)
        run = Evaluation(config, run_in(tmp_path / str(head_lr)))
        before = run.model.head.weight.detach().clone()
        run.run()
        moved = not torch.equal(run.model.backbone.state_dict()["scale"], torch.ones(3))
        assert moved == (backbone_lr == 0.5)
        change = (run.model.head.weight.detach() - before).abs().max()
        assert (change > 1e-3) == (head_lr == 0.5)
