"""The order in which a training and an evaluation read shards: by process, worker and epoch."""

import io
import random
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import webdataset
from torch.utils.data import IterableDataset, get_worker_info

from common.errors import UserError
from pretrain.data.loading import Sample, decode, evaluation_sample
from pretrain.data.order import StepBatches
from pretrain.data.source import Transform, Views

if TYPE_CHECKING:
    from pretrain.data.shards import ShardSource

BUFFER = 1000
"""Images of a worker among which the next one is drawn; it holds the files' bytes, 0.1 GB."""


class TrainingStream(IterableDataset[Sample]):
    """The images of a process's workers, epoch after epoch.

    An epoch puts the shards into a ring and begins somewhere in it, both keyed by (seed, epoch).
    From there on the images are cut into equal runs, one for each process, and these into one for
    each worker, as long as its batches: an epoch has every image at most once, and all but those
    of an incomplete last batch. A run that begins within a shard is read from there on, so that
    there may be more workers, or more processes, than shards.

    A worker that met unreadable images begins its run again to fill the epoch's last batches.
    Which images make a batch depends on the number of workers; the views of an image do not.

    An order that starts within an epoch reads what came before, without decoding it: with as many
    workers, its batches are those of a whole epoch from there on, but for unreadable images before.

    Raises:
        ValueError: if ``order`` is of other images.
    """

    def __init__(self, source: "ShardSource", views: Views, order: StepBatches) -> None:
        if order.images != len(source):
            raise ValueError(f"an order of {order.images} images for {len(source)}")
        self.source, self.views, self.order = source, views, order

    def __iter__(self) -> Iterator[Sample]:
        worker, workers = _worker()
        steps = self.order.steps_per_epoch
        first = self.order.start // steps if steps else 0
        for epoch in range(first, self.order.total_steps // steps if steps else 0):
            # The loader takes a batch from each worker in turn and goes on so over the epochs'
            # ends: the one that is due for an epoch's first batch is first in that epoch.
            slot = (worker - (epoch * steps - self.order.start)) % workers
            yield from self._epoch(epoch, slot, workers)

    def _epoch(self, epoch: int, slot: int, slots: int) -> Iterator[Sample]:
        indices = self._run(epoch, slot, slots)
        rng = random.Random(f"{self.order.seed} {epoch} {self.order.rank} {slot}")
        due, unreadable, skipped = len(indices), set[int](), list[str]()
        position = max(self.order.start - epoch * self.order.steps_per_epoch, 0)
        done = len(range(slot, position, slots)) * self.order.share
        while due:
            for index, file in webdataset.shuffle(BUFFER, rng=rng)(self.source.stream(indices)):
                if done:
                    due, done = due - 1, done - 1
                    if not due:
                        return
                    continue
                image = decode(io.BytesIO(file))
                if image is None:
                    unreadable.add(index)
                    skipped.append(self.source.member(index))
                    continue
                yield self.views(image, epoch, index), self.source.labels[index], skipped
                due, skipped = due - 1, []
                if not due:
                    return
            indices = indices[~np.isin(indices, list(unreadable))]
            if not len(indices):
                raise UserError(
                    f"none of the {len(unreadable)} images around {self.source.member(index)} "
                    "can be read; are they image files?"
                )

    def _run(self, epoch: int, slot: int, slots: int) -> np.ndarray:
        """Indices of the images of one worker in an epoch, in the order that it reads them."""
        order, shards = self.order, list(range(len(self.source.shards)))
        rng = random.Random(f"{order.seed} {epoch}")
        rng.shuffle(shards)
        # The start moves, or one shard would leave the same incomplete batch out every time.
        indices = np.roll(self.source.in_order_of(shards), rng.randrange(order.images))
        batches = [len(range(s, order.steps_per_epoch, slots)) for s in range(slots)]
        before = order.rank * order.steps_per_epoch + sum(batches[:slot])
        return indices[before * order.share : (before + batches[slot]) * order.share]


class EvaluationStream(IterableDataset[Sample]):
    """One view of each image of a process's part, cut into equal runs for the workers."""

    def __init__(self, source: "ShardSource", transform: Transform, rank: int, size: int) -> None:
        self.source, self.transform, self.rank, self.size = source, transform, rank, size

    def __iter__(self) -> Iterator[Sample]:
        worker, workers = _worker()
        source, images, parts = self.source, len(self.source), self.size * workers
        part = self.rank * workers + worker
        run = slice(images * part // parts, images * (part + 1) // parts)
        for index, file in source.stream(source.in_order_of(range(len(source.shards)))[run]):
            image, label = decode(io.BytesIO(file)), source.labels[index]
            yield evaluation_sample(image, self.transform, label, source.member(index))


def _worker() -> tuple[int, int]:
    """Number of this worker, and of how many."""
    info = get_worker_info()
    return (info.id, info.num_workers) if info else (0, 1)
