"""Order in which a training sees its images: seeded, and the same after any interruption."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class StepBatches:
    """The (epoch, index) keys of one process's share of every batch from a step to the end.

    Each epoch is a permutation keyed by (seed, epoch), cut into whole batches; process r has the
    r-th slice of each, so that a batch is the same images however many processes share it.

    With ``block`` above 1 it is a permutation of blocks of neighbouring images, which a shard has
    side by side. Where the first block begins differs between epochs, so that an image has other
    neighbours every time.
    """

    images: int
    batch_size: int
    epochs: int
    seed: int
    rank: int = 0
    world_size: int = 1
    start: int = 0
    block: int = 1

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch."""
        return self.images // self.batch_size

    @property
    def total_steps(self) -> int:
        """Steps of all epochs, whatever ``start`` is."""
        return self.epochs * self.steps_per_epoch

    def __len__(self) -> int:
        return self.total_steps - self.start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        share = self.batch_size // self.world_size
        order: list[int] = []
        ordered = -1
        for step in range(self.start, self.total_steps):
            epoch, position = divmod(step, self.steps_per_epoch)
            if epoch != ordered:
                order, ordered = self._permutation(epoch), epoch
            first = position * self.batch_size + self.rank * share
            yield [(epoch, index) for index in order[first : first + share]]

    def _permutation(self, epoch: int) -> list[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        blocks = torch.randperm(-(-self.images // self.block), generator=generator)
        first = torch.randint(self.block, (), generator=generator)
        order = (blocks[:, None] * self.block + torch.arange(self.block)).flatten()
        found: list[int] = ((order[order < self.images] + first) % self.images).tolist()
        return found
