"""From image files to batches: decoding, what becomes of unreadable images, data loaders."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from common.workers import items_of, outlive_sigterm
from pretrain.data.source import Batch, Transform

log = logging.getLogger(__name__)

UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""What Pillow raises for a file that is cut short, of another kind, or absurdly large."""

Sample = tuple[tuple[Tensor, ...], int, list[str]]
"""Views, label, and the unreadable images on the way to them; no views of an image left out."""


def decode(file: str | BinaryIO) -> Image.Image | None:
    """An image as RGB; None if it cannot be read."""
    try:
        with Image.open(file) as image:
            return image.convert("RGB")
    except UNREADABLE:
        return None


def evaluation_sample(
    image: Image.Image | None, transform: Transform, label: int, name: str
) -> Sample:
    """One view of an image; of None, which could not be read, only the name."""
    return ((), label, [name]) if image is None else ((transform(image),), label, [])


def collate(samples: Sequence[Sample]) -> Batch:
    """One batch of the samples; those without views only name what could not be read."""
    whole = [(views, label) for views, label, _ in samples if views]
    return Batch(
        tuple(default_collate([views for views, _ in whole])) if whole else (),
        torch.tensor([label for _, label in whole], dtype=torch.int64),
        [name for _, _, skipped in samples for name in skipped],
    )


def warn_of_skipped(names: list[str]) -> int:
    """Warn by name of every image that could not be read; how many there were."""
    for name in names:
        log.warning("skipped an unreadable image: %s", name)
    return len(names)


class Batches:
    """The batches of a data set of :data:`Sample`; loaded anew whenever they are iterated over.

    Args:
        dataset: map-style or iterable.
        workers: processes that load; 0 loads in this one.
        pin_memory: whether batches lie in page-locked memory, for faster copies to a GPU.
        how: which samples make a batch, as for a ``DataLoader``.
    """

    def __init__(
        self, dataset: Dataset[Sample], workers: int, pin_memory: bool = False, **how: Any
    ) -> None:
        self.loader = DataLoader(
            dataset,
            num_workers=workers,
            collate_fn=collate,
            pin_memory=pin_memory,
            worker_init_fn=outlive_sigterm,
            generator=torch.Generator(),  # or a loader would draw from the stream of the model
            **how,
        )

    def __iter__(self) -> Iterator[Batch]:
        """Every batch.

        Raises:
            UserError: a worker's, as it was raised there.
        """
        return items_of(self.loader)
