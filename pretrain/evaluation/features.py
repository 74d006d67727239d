"""Features of images by a network over the processes' shares of a split, and accuracies."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common import distributed
from common.distributed import World
from pretrain.augment import centre_crop
from pretrain.data.images import ImageSource, warn_of_skipped


@dataclass(frozen=True)
class Features:
    """Outputs (n, c) of a network, float32, and labels (n,), on its device.

    Where no image could be read, ``vectors`` are (0, 0). ``skipped`` counts those that could not.
    """

    vectors: Tensor
    labels: Tensor
    skipped: int


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put a network into eval mode, and back into its own mode afterwards."""
    mode = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(mode)


@torch.no_grad()
def extract(
    network: nn.Module,
    source: ImageSource,
    image_size: int,
    workers: int,
    world: World,
    dtype: torch.dtype | None = None,
    batch_size: int = 256,
) -> Features:
    """Features of this process's share of the images, each once; the network is as before.

    The network is on the process's device, with autocast to ``dtype``; its feature maps
    (b, c, h, w) are averaged over their pixels, vectors (b, c) are taken as they are. The images
    are seen as the centre crop of a resized image.
    """
    batches = source.evaluation_batches(
        centre_crop(image_size),
        batch_size,
        min(workers, distributed.cpus_per_process(world)),
        world.rank,
        world.size,
    )
    device = world.device
    vectors, labels, skipped = [], [torch.empty(0, dtype=torch.int64)], 0
    with evaluating(network):
        for batch in batches:
            skipped += warn_of_skipped(batch.skipped)
            if not batch.views:
                continue  # none of these could be read
            images = batch.views[0].to(device, non_blocking=True)
            with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
                found = network(images)
            found = found.float()
            vectors.append(found.mean((2, 3)) if found.dim() == 4 else found)
            labels.append(batch.labels)
    whole = torch.cat(vectors) if vectors else torch.empty(0, 0, device=device)
    return Features(whole, torch.cat(labels).to(device), skipped)


@dataclass(frozen=True)
class Accuracy:
    """A share of right answers."""

    correct: int
    total: int

    @property
    def percent(self) -> float:
        """The share in percent; NaN without an answer."""
        return 100 * self.correct / self.total if self.total else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Its 95 % Wilson interval in percent (Wilson 1927, JASA 22:209); all without an answer.

        It tells of the images that happened to be drawn, not of seeds.
        """
        if not self.total:
            return 0.0, 100.0
        from scipy.stats import binomtest  # takes as long to import as torch

        found = binomtest(self.correct, self.total).proportion_ci(method="wilson")
        return 100 * float(found.low), 100 * float(found.high)


def count_correct(logits: Tensor, labels: Tensor) -> Tensor:
    """Right first guesses, right among the first five, and all answers: int64 (3,).

    Logits are (n, classes), labels (n,); of fewer than five classes all are guessed.
    """
    guesses = logits.topk(min(5, logits.shape[1]), 1).indices
    right = guesses == labels[:, None]
    return torch.stack([right[:, 0].sum(), right.sum(), torch.tensor(len(labels)).to(right.device)])
