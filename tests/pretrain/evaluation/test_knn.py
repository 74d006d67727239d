"""kNN against brute force in float64; the monitor: what it asks, and what it leaves alone."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn

from common.distributed import World
from common.errors import UserError
from pretrain.data.locate import open_images
from pretrain.evaluation import knn
from pretrain.evaluation.knn import KnnMonitor, clip, cross_validated, predict
from tests.alone import ALONE
from tests.pretrain.evaluation.sources import TensorSource
from tests.processes import in_processes


def brute_force(
    queries: Tensor, memory: Tensor, labels: Sequence[int], k: int, temperature: float
) -> list[int]:
    """The definition, one query after the other, in float64."""
    found = []
    memory64 = memory.numpy().astype(np.float64)
    for query in queries.numpy().astype(np.float64):
        cosines = [q @ query / np.linalg.norm(q) / np.linalg.norm(query) for q in memory64]
        votes: dict[int, float] = {}
        for index in sorted(range(len(memory64)), key=lambda i: -cosines[i])[:k]:
            weight = math.exp(cosines[index] / temperature)
            votes[labels[index]] = votes.get(labels[index], 0.0) + weight
        found.append(max(votes, key=votes.__getitem__))
    return found


def clustered(count: int, classes: int, seed: int, noise: float = 1.2) -> tuple[Tensor, Tensor]:
    """Features (count, 6) around one centre for each class, of lengths that differ."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, 6, generator=torch.Generator().manual_seed(99))
    labels = torch.arange(count) % classes
    spread = noise * torch.randn(count, 6, generator=generator)
    return (centres[labels] + spread) * (0.1 + torch.rand(count, 1, generator=generator)), labels


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_predictions_are_those_of_brute_force(temperature: float) -> None:
    memory, labels = clustered(120, 4, seed=1)
    queries, _ = clustered(50, 4, seed=2)
    ks = (1, 5, 30, 120)
    found = predict(queries, memory, labels, ks, temperature)
    for row, k in zip(found, ks, strict=True):
        assert row.tolist() == brute_force(queries, memory, labels.tolist(), k, temperature)
    assert len({tuple(row) for row in found.tolist()}) > 1  # k does matter here


@pytest.mark.parametrize("similarities", [1, 120 * 7, 120 * 50, 10**9])
def test_queries_may_be_taken_in_chunks(similarities: int, monkeypatch: pytest.MonkeyPatch) -> None:
    memory, labels = clustered(120, 4, seed=1)
    queries, _ = clustered(50, 4, seed=2)
    whole = predict(queries, memory, labels, (5, 20))
    monkeypatch.setattr(knn, "SIMILARITIES", similarities)
    assert torch.equal(predict(queries, memory, labels, (5, 20)), whole)


def test_no_more_neighbours_than_the_smallest_class() -> None:
    labels = torch.tensor([0, 0, 0, 3, 3])
    assert clip(20, labels) == 2 and clip(1, labels) == 1


def test_cross_validation_asks_each_image_once_and_never_itself() -> None:
    features, labels = clustered(61, 3, seed=5)
    k, right = cross_validated(features, labels, folds=4, k=5, temperature=0.07, seed=3)
    assert k == 5 and len(right) == 61
    # The folds again, by their definition.
    generator = torch.Generator().manual_seed(3)
    fold = torch.empty(61, dtype=torch.int64)
    for label in range(3):
        members = (labels == label).nonzero()[:, 0]
        order = torch.randperm(len(members), generator=generator)
        fold[members[order]] = torch.arange(len(members)) % 4
    for index in range(61):
        rest = fold != fold[index]
        (answer,) = brute_force(
            features[index : index + 1], features[rest], labels[rest].tolist(), 5, 0.07
        )
        assert right[index] == (answer == labels[index].item())


def test_folds_need_every_class() -> None:
    features, labels = clustered(9, 3, seed=0)
    with pytest.raises(ValueError, match="4 folds of classes that have 3 images"):
        cross_validated(features, labels, folds=4, k=1)


class Net(nn.Module):
    """Feature maps with BatchNorm; (b, 3, 2, 2) -> (b, 6, 2, 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6)

    def forward(self, images: Tensor) -> Tensor:
        """The maps."""
        return self.norm(self.conv(images))


def split(name: str, count: int, seed: int, **more: Any) -> TensorSource:
    """Images (3, 2, 2) whose class is visible through noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    noise = 1.5 * torch.randn(count, 3, 2, 2, generator=generator)
    images = torch.eye(3)[labels][:, :, None, None] + noise
    return TensorSource(images, labels.tolist(), name, **more)


def network() -> Net:
    torch.manual_seed(4)
    return Net()


def monitor(world: World, **sources: TensorSource) -> KnnMonitor:
    memory = sources.get("memory", split("train", 90, seed=1))
    queries = sources.get("queries", split("val", 41, seed=2))
    return KnnMonitor(memory, queries, 2, 0, world, images=60, seed=5)


def test_the_monitor_is_brute_force_over_the_validation_split() -> None:
    net, watch = network(), monitor(ALONE)
    found = watch(net, None)
    assert sorted(watch.memory.labels) == [0] * 20 + [1] * 20 + [2] * 20
    assert set(watch.memory.names) <= set(split("train", 90, seed=1).names)
    assert set(watch.memory.names).isdisjoint(watch.queries.names)
    with torch.no_grad():
        net.eval()
        assert isinstance(watch.memory, TensorSource) and isinstance(watch.queries, TensorSource)
        memory, queries = (net(s.images).mean((2, 3)) for s in (watch.memory, watch.queries))
    answers = brute_force(queries, memory, watch.memory.labels, 20, 0.07)
    right = sum(a == b for a, b in zip(answers, watch.queries.labels, strict=True))
    assert found["knn20_top1"] == pytest.approx(100 * right / 41)
    assert found["knn20_low"] < found["knn20_top1"] < found["knn20_high"]
    assert found["knn_k20"] == found["knn_k200"] == 20  # the smallest class of the memory
    assert found["knn200_top1"] == found["knn20_top1"]
    assert (found["knn_memory"], found["knn_queries"]) == (60, 41)


def test_the_monitor_leaves_everything_as_it_was(demo_root: Path) -> None:
    training, validation = open_images("demo", "train"), open_images("demo", "val")
    resnet = torchvision.models.resnet18()
    resnet.fc = nn.Identity()
    resnet.train()
    modes = [module.training for module in resnet.modules()]
    before = {name: tensor.clone() for name, tensor in resnet.state_dict().items()}
    watch = KnnMonitor(training, validation, 32, 1, ALONE, images=12, seed=0)
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    found = watch(resnet, None)
    assert torch.equal(torch.rand(3), expected)
    assert [module.training for module in resnet.modules()] == modes
    assert all(torch.equal(tensor, before[name]) for name, tensor in resnet.state_dict().items())
    assert all(parameter.grad is None for parameter in resnet.parameters())
    assert found["knn_queries"] == len(validation) and found["knn_memory"] == 12
    assert found == watch(resnet, None)


def test_unreadable_images_are_left_out() -> None:
    memory = split("train", 90, seed=1, unreadable=frozenset(range(60)))
    queries = split("val", 41, seed=2, unreadable=frozenset((0, 40)))
    found = monitor(ALONE, memory=memory, queries=queries)(network(), None)
    assert found["knn_queries"] == 39 and 0 < found["knn_memory"] < 60
    assert found["knn_k20"] < 20
    nothing = split("train", 90, seed=1, unreadable=frozenset(range(90)))
    with pytest.raises(UserError, match="none of the kNN's images in train can be read"):
        monitor(ALONE, memory=nothing)(network(), None)


def _monitor_in_a_process(world: World, expected: dict[str, float]) -> None:
    net = network()
    net.norm.running_mean.fill_(float(world.rank))  # type: ignore[union-attr]
    queries = split("val", 41, seed=2)
    assert monitor(world, queries=queries)(net, None) == expected
    assert net.norm.running_mean.tolist() == [world.rank] * 6  # type: ignore[union-attr]
    # Fewer queries than processes: some have none.
    few = monitor(world, queries=queries.subset([0]))(net, None)
    assert few["knn_queries"] == 1


def test_processes_share_the_queries_and_agree() -> None:
    """With the buffers of the first, as a checkpoint has them."""
    in_processes(_monitor_in_a_process, monitor(ALONE)(network(), None))
