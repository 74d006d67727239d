"""Features of images: a frozen network over the processes' shares of a split."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common import distributed
from common.distributed import World
from pretrain.augment import centre_crop
from pretrain.data.images import ImageSource, warn_of_skipped
from pretrain.evaluation.ranks import add_up, gather_rows


@dataclass(frozen=True)
class Features:
    """What a network makes of images.

    Attributes:
        vectors: (n, c), float32, on the process's device; (0, 0) where no image could be read.
        labels: class indices (n,), on the same device.
        skipped: how many files could not be read.
    """

    vectors: Tensor
    labels: Tensor
    skipped: int

    def gathered(self, world: World) -> "Features":
        """Those of all processes, in their order."""
        skipped = add_up(torch.tensor(self.skipped), world)
        return Features(
            gather_rows(self.vectors, world), gather_rows(self.labels, world), int(skipped)
        )


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put a network into eval mode, and each of its modules back into its own mode afterwards."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


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
