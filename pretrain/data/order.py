"""Which images make each batch: a seeded order that no interruption and no process changes."""

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler


class StepBatches(Sampler[list[tuple[int, int]]]):
    """The (epoch, index) keys of one process's share of every batch from a step to the end.

    Each epoch is a permutation keyed by (seed, epoch), cut into whole batches; process r has the
    r-th slice of each, so that a batch is the same images however many processes share it.
    """

    def __init__(
        self,
        images: int,
        batch_size: int,
        epochs: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        start: int = 0,
    ) -> None:
        self.images, self.batch_size, self.seed = images, batch_size, seed
        self.rank, self.world_size, self.start = rank, world_size, start
        self.steps_per_epoch = images // batch_size
        self.total_steps = epochs * self.steps_per_epoch

    @property
    def share(self) -> int:
        """Images of a batch that this process has."""
        return self.batch_size // self.world_size

    def __len__(self) -> int:
        return self.total_steps - self.start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order: list[int] = []
        ordered = -1
        for step in range(self.start, self.total_steps):
            epoch, position = divmod(step, self.steps_per_epoch)
            if epoch != ordered:
                generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
                order = torch.randperm(self.images, generator=generator).tolist()
                ordered = epoch
            first = position * self.batch_size + self.rank * self.share
            yield [(epoch, index) for index in order[first : first + self.share]]
