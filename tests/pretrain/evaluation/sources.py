"""Images that are tensors, and networks of a few weights."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from pretrain.data.images import Batch, ImageSource, Transform, Views
from pretrain.data.order import StepBatches


class TensorSource(ImageSource):
    """Images (n, 3, s, s) that no transform touches.

    Args:
        images: (n, 3, s, s).
        labels: class of each.
        name: the description, and what the names begin with.
        unreadable: indices of images that cannot be read.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Sequence[int],
        name: str,
        unreadable: frozenset[int] = frozenset(),
    ) -> None:
        self.images, self.labels, self.description = images, list(labels), name
        self.classes = [f"class{label}" for label in range(max(labels) + 1)]
        self.names = [f"{name}{i}" for i in range(len(images))]
        self.unreadable = unreadable

    def subset(self, indices: Sequence[int]) -> "TensorSource":
        bad = frozenset(new for new, old in enumerate(indices) if old in self.unreadable)
        part = TensorSource(
            self.images[list(indices)], [self.labels[i] for i in indices], self.description, bad
        )
        part.classes, part.names = self.classes, [self.names[i] for i in indices]
        return part

    def training_batches(
        self, views: Views, order: StepBatches, workers: int, pin_memory: bool = False
    ) -> Iterable[Batch]:
        for keys in order:
            indices = [index for _, index in keys]
            labels = torch.tensor([self.labels[i] for i in indices])
            yield Batch((self.images[indices],), labels, [])

    def evaluation_batches(
        self, transform: Transform, batch_size: int, workers: int, rank: int = 0, size: int = 1
    ) -> Iterable[Batch]:
        mine = range(rank, len(self), size)
        for first in range(0, len(mine), batch_size):
            indices = mine[first : first + batch_size]
            whole = [i for i in indices if i not in self.unreadable]
            yield Batch(
                (self.images[whole],) if whole else (),
                torch.tensor([self.labels[i] for i in whole]),
                [self.names[i] for i in indices if i in self.unreadable],
            )


def small_network() -> nn.Sequential:
    """A seeded network with BatchNorm; images (b, 3, h, w) -> features (b, 8)."""
    torch.manual_seed(4)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 1),
        nn.BatchNorm2d(8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
