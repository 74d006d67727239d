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
    """The outputs of a network for some images.

    Attributes:
        vectors: (n, c), float32, on the process's device; (0, 0) where no image could be read.
        labels: class indices (n,), on the same device.
        skipped: number of files that could not be read.
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

    Args:
        network: on the process's device; images (b, 3, h, w) -> feature maps (b, c, h', w'),
            which are averaged over their pixels, or vectors (b, c).
        source: the images, seen as the centre crop of a resized image.
        image_size: side of the crop in pixels.
        workers: data-loader processes.
        world: this process.
        dtype: of autocast; None for float32.
        batch_size: images at a time.
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
    """A share of right answers.

    Attributes:
        correct: right answers.
        total: all answers.
    """

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

    Args:
        logits: (n, classes); with fewer than five classes all of them are guessed.
        labels: (n,).
    """
    guesses = logits.topk(min(5, logits.shape[1]), 1).indices
    right = guesses == labels[:, None]
    return torch.stack([right[:, 0].sum(), right.sum(), torch.tensor(len(labels)).to(right.device)])
