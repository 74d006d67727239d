"""Images of a fine-tuning: Detectron2's order and batches, from any iteration on.

An image's augmentation depends on the seed and its place in the order alone, and what a model
draws on the seed and the iteration: a resumed run equals an uninterrupted one.
"""

import itertools
import logging
import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from detectron2.data import DatasetFromList, build_detection_train_loader
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from torch.utils.data import DataLoader, Dataset

from common.errors import UserError
from common.workers import items_of, outlive_sigterm
from detection import compat
from detection.mapper import UNREADABLE, Mapper

log = logging.getLogger("detection")

Record = dict[str, Any]
Place = tuple[int, int]  # an image's position in the order of all processes, and its index

TRIES = 100  # for an image that can be read, before the data set is taken for broken
ORDER, IMAGE, MODEL, PRECISE_BN = range(4)  # uses of a derived seed


class Stream:
    """This process's batches of mapped images, from iteration :attr:`start` on, without end.

    Batches are those of Detectron2's ``build_detection_train_loader``, whose samplers are used,
    also with ``DATALOADER.ASPECT_RATIO_GROUPING``. (0.6 shuffles batches without grouping among its
    workers.)

    Args:
        cfg: a Detectron2 config.
        mapper: from dataset dicts to images.
        seed: of the order, of the images' augmentation and of what the model draws.
        workers: processes that load; None for ``DATALOADER.NUM_WORKERS``.

    Attributes:
        start: the iteration to begin with when it is iterated over, from 0.
        unreadable: number of images in this process's batches that could not be read.
    """

    def __init__(self, cfg: Any, mapper: Mapper, seed: int, workers: int | None = None) -> None:
        self.start = self.unreadable = 0
        self._seed = seed
        self._workers = cfg.DATALOADER.NUM_WORKERS if workers is None else workers
        seeded = compat.seed_sampler(cfg, derived_seed(seed, ORDER))
        parts = build_detection_train_loader.from_config(seeded, mapper=mapper)
        records: list[Record] = parts["dataset"]
        self._wide = _wide(records, cfg) if cfg.DATALOADER.ASPECT_RATIO_GROUPING else None
        self._size = cfg.SOLVER.IMS_PER_BATCH // comm.get_world_size()
        self._sampler = parts["sampler"]
        self._images = Images(records, mapper, seed)

    def __iter__(self) -> Iterator[list[Record]]:
        places = batches(self._sampler, self._size, self._wide)
        after = itertools.islice(places, self.start, None)
        loader = DataLoader(
            self._images,
            batch_size=None,  # or workers would hold whole batches in shared memory
            sampler=itertools.chain.from_iterable(after),
            num_workers=self._workers,
            collate_fn=_identity,
            worker_init_fn=outlive_sigterm,
        )
        images: Iterator[tuple[Record, int]] = items_of(loader)
        for iteration in itertools.count(self.start):
            batch = list(itertools.islice(images, self._size))
            self.unreadable += sum(unreadable for _, unreadable in batch)
            seed_all_rng(derived_seed(self._seed, MODEL, comm.get_rank(), iteration))
            yield [record for record, _ in batch]

    def state_dict(self) -> dict[str, int]:
        """The number of unreadable images of all processes; to be called in all of them."""
        return {"unreadable_images": sum(comm.all_gather(self.unreadable))}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Count on from there, in the main process."""
        self.unreadable = state["unreadable_images"] if comm.is_main_process() else 0


def batches(
    sampler: Iterable[int], size: int, wide: Sequence[bool] | None
) -> Iterator[list[Place]]:
    """Batches of ``size`` places, without end, of a sampler of this process's indices.

    Images that are ``wide``, by index, make no batch with others, but for the stand-in of an
    unreadable one; with None any do.
    """
    rank, world_size = comm.get_rank(), comm.get_world_size()
    buckets: tuple[list[Place], list[Place]] = ([], [])
    for mine, index in enumerate(sampler):
        bucket = buckets[wide[index] if wide else 0]
        bucket.append((rank + mine * world_size, index))
        if len(bucket) == size:
            yield bucket[:]
            bucket.clear()


class Images(Dataset[tuple[Record, int]]):
    """Mapped images by place; for one that cannot be read, which is logged, another is drawn."""

    def __init__(self, records: list[Record], mapper: Mapper, seed: int) -> None:
        self.records = DatasetFromList(records, copy=False)
        self.mapper, self.seed = mapper, seed

    def __getitem__(self, at: Place) -> tuple[Record, int]:
        """A mapped image, and the number of images tried before that could not be read."""
        place, index = at
        seed_all_rng(derived_seed(self.seed, IMAGE, place))
        for unreadable in range(TRIES):
            record = self.records[index]
            name = record["file_name"]
            try:
                return self.mapper(record), unreadable
            except UNREADABLE as error:
                why = error
                log.warning("skipped an unreadable image: %s (%s)", name, why)
            index = random.randrange(len(self.records))
        raise UserError(
            f"{TRIES} images in a row cannot be read, such as {name} ({why}); is the data set "
            "whole?"
        )


def _wide(records: list[Record], cfg: Any) -> list[bool]:
    try:
        return [record["width"] > record["height"] for record in records]
    except KeyError as error:
        raise UserError(
            f"DATALOADER.ASPECT_RATIO_GROUPING is True, but {', '.join(cfg.DATASETS.TRAIN)} does "
            "not tell the sizes of its images; set it to False."
        ) from error


def _identity(image: Any) -> Any:
    return image


def derived_seed(*numbers: int) -> int:
    """A seed of 32 bits, independent of that of other numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
