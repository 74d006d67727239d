"""Classifiers: what a run leaves, a frozen backbone, the arithmetic of steps, two processes."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from common import checkpoints
from common.distributed import World
from common.errors import UserError
from common.files import sha256
from common.metrics import read_lines
from common.weights import Weights
from pretrain.engine import Engine
from pretrain.evaluation import classifier
from pretrain.evaluation.classifier import Classification, classify, load_backbone
from pretrain.evaluation.config import ClassifierConfig
from pretrain.evaluation.splits import Splits
from tests.alone import ALONE, run_in
from tests.pretrain.evaluation.sources import TensorSource, small_network
from tests.pretrain.small_runs import linear, semi
from tests.processes import in_processes


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluations of a small network in the place of a ResNet."""
    monkeypatch.setattr(classifier, "load_backbone", lambda _: small_network())
    monkeypatch.setattr(classifier, "feature_dim", lambda _: 8)


def semi_of(few_images: Path, **changes: Any) -> ClassifierConfig:
    """Semi-supervised on all of the few images."""
    return replace(semi(few_images, batch_size=8), percent=100, **changes)


def engine(config: ClassifierConfig, folder: Path, world: World = ALONE) -> tuple[Engine, Any]:
    """The loop of an evaluation in this process, and its task."""
    task = Classification(config, world)
    return Engine(task, run_in(folder, world)), task


def test_a_linear_run_and_what_it_leaves(tmp_path: Path, few_images: Path) -> None:
    torch.manual_seed(0)
    torch.save(load_backbone(Weights("resnet18")).state_dict(), tmp_path / "r18.pth")
    digest = sha256(tmp_path / "r18.pth")
    weights = Weights("resnet18", str(tmp_path / "r18.pth"), digest, "BYOL", "", 300)
    config = linear(few_images, weights=weights)
    metrics = classify(config, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "metrics.json").read_text()) == metrics
    expected = {
        "kind": "linear", "method": "BYOL", "pretrain_epochs": 300, "architecture": "resnet18",
        "lr": 0.4 * 8 / 256, "batch_size": 8, "epochs": 2, "seed": 0, "subset": "all",
        "images_train": 24, "images_val": 8, "unreadable_images": 0, "weights_sha256": digest,
        "demo": False, "top5": 100.0, "device": "1 x cpu", "precision": "float32",
    }  # fmt: skip
    assert expected.items() <= metrics.items()
    assert metrics["top1_low"] <= metrics["top1"] <= metrics["top1_high"]
    rows = read_lines(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in rows if "loss" in row] == list(range(6))
    accuracies = [row["top1"] for row in rows if "top1" in row]
    assert len(accuracies) == 2 and accuracies[-1] == metrics["top1"]  # the last, not the best
    state = checkpoints.load(tmp_path / "run" / "checkpoint.pth")
    assert set(state["state_dict"]) == {"weight", "bias"}
    assert list((tmp_path / "run" / "tensorboard").iterdir())
    (tmp_path / "r18.pth").write_bytes(b"another file")
    with pytest.raises(UserError, match=r"r18\.pth were changed after"):
        classify(config, tmp_path / "run")


def test_a_frozen_backbone_keeps_every_bit(tmp_path: Path, few_images: Path) -> None:
    loop, task = engine(linear(few_images), tmp_path)
    backbone = task.network.backbone
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    loop.run()
    assert all(torch.equal(tensor, before[k]) for k, tensor in backbone.state_dict().items())
    assert not any(module.training for module in backbone.modules())
    assert all(parameter.grad is None for parameter in backbone.parameters())


def test_unreadable_images_are_counted(tmp_path: Path, few_images: Path, small: None) -> None:
    shutil.copytree(few_images, tmp_path / "data")
    for split in ("train", "val"):
        path = sorted((tmp_path / "data" / split / "rings").iterdir())[0]
        path.write_bytes(path.read_bytes()[:200])
    metrics = classify(linear(tmp_path / "data"), tmp_path / "run")
    assert metrics["images_val"] == 7 and metrics["unreadable_images"] == 2 + 1  # two epochs
    assert (tmp_path / "run" / "log.txt").read_text().count("skipped an unreadable image") == 3
    for path in (tmp_path / "data" / "val").glob("*/*"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match=r"none of the validation images in .* can be read"):
        classify(semi_of(tmp_path / "data"), tmp_path / "none")


def _in_a_process(world: World, data: Path, folder: Path, whole: dict[str, Any]) -> None:
    classifier.load_backbone = lambda _: small_network()  # type: ignore[assignment]
    classifier.feature_dim = lambda architecture: 8
    loop, task = engine(linear(data), folder, world)
    dist.barrier()
    metrics = loop.run()
    same = ("top1", "top5", "images_val", "unreadable_images", "top1_low", "subset")
    assert {k: metrics[k] for k in same} == {k: whole[k] for k in same}
    assert math.isclose(metrics["loss"], whole["loss"], rel_tol=1e-4)
    torch.testing.assert_close(task.network.head.weight, whole["weight"], rtol=1e-3, atol=1e-5)

    loop, task = engine(semi_of(data, epochs=1), folder / "semi", world)
    dist.barrier()
    metrics = loop.run()
    assert metrics["images_val"] == 8
    for parameter in task.network.parameters():
        both = [torch.empty_like(parameter) for _ in range(world.size)]
        dist.all_gather(both, parameter.detach().contiguous())
        assert torch.equal(both[0], both[1])
    # Each has BatchNorm averages of its own; what is measured is the network in the checkpoint.
    kept = Classification(task.config, ALONE)
    saved = checkpoints.load(folder / "semi" / "checkpoint.pth")
    kept.network.load_state_dict(saved["state_dict"])
    kept.network.eval(), task.network.eval()
    with torch.no_grad():  # other processes' buffers are none of one alone
        images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        mine, expected = task.network(images), kept.network(images)
    if world.is_main:
        torch.testing.assert_close(mine, expected)
    assert saved["progress"]["top1"] == task.progress.top1
    assert saved["progress"]["evaluated"] == task.progress.evaluated == 8


def test_two_processes_are_one(tmp_path: Path, few_images: Path, small: None) -> None:
    loop, task = engine(linear(few_images), tmp_path / "alone")
    whole = loop.run() | {"weight": task.network.head.weight.detach()}
    in_processes(_in_a_process, few_images, tmp_path / "two", whole)


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
    loop, task = engine(config, tmp_path)
    head = task.network.head
    start = head.weight.detach().clone().numpy()
    assert abs(start).max() < 0.05 and not head.bias.any()  # N(0, 0.01), and 0
    order = [[index for _, index in keys] for keys in loop.batches]
    loop.run()
    batches = [
        (training.images[i, :, 0, 0].double().numpy(), np.array(training.labels)[i]) for i in order
    ]
    rates = [0.7] * 6 + [0.07] * 2 + [0.007] * 2
    weight, bias = numpy_sgd(start, batches, rates, 0.01)
    np.testing.assert_allclose(head.weight.detach().numpy(), weight, atol=2e-6)
    np.testing.assert_allclose(head.bias.detach().numpy(), bias, atol=2e-6)
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
        loop, task = engine(config, tmp_path / str(head_lr))
        before = task.network.head.weight.detach().clone()
        loop.run()
        moved = not torch.equal(task.network.backbone.state_dict()["scale"], torch.ones(3))
        assert moved == (backbone_lr == 0.5)
        change = (task.network.head.weight.detach() - before).abs().max()
        assert (change > 1e-3) == (head_lr == 0.5)
