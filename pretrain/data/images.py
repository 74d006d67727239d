"""Labelled images of folders and of shards, and the batches of them."""

import dataclasses
import io
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from os.path import basename, splitext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate
from torchvision.datasets import ImageFolder

from common.errors import UserError
from common.workers import items_of, outlive_sigterm
from pretrain.data.order import StepBatches
from pretrain.data.shards import class_names, read_index

log = logging.getLogger(__name__)

BLOCK = 32  # neighbours in a shard that a training reads at once: of ImageNet, 3.5 MB
GAP = 1 << 16  # bytes between two images that are rather read than skipped
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""Errors of Pillow for a file that is cut short, of another kind, or absurdly large."""

Views = Callable[[Image.Image, int, int], tuple[Tensor, ...]]
"""(RGB image, epoch, index) -> tensors (3, s, s): the same for the same epoch and index."""

Transform = Callable[[Image.Image], Tensor]
"""RGB image -> tensor (3, s, s), without randomness."""

Sample = tuple[tuple[Tensor, ...], int, list[str]]
"""Views, label, and the unreadable images on the way to them; no views of an image left out."""


class Batch(NamedTuple):
    """One step's images of one process."""

    views: tuple[Tensor, ...]  # (b, 3, s, s); none where no image of them could be read
    labels: Tensor  # (b,), int64
    skipped: list[str]  # unreadable images; a training put others in their places


@dataclass
class ImageSource:
    """The labelled images of one split; each is some bytes of a file."""

    description: str  # the folder or shards, as an error message names them
    classes: Sequence[str]  # by their indices
    labels: Sequence[int]
    titles: Sequence[str]  # in log lines: paths, or ``shard.tar/key``
    files: Sequence[str]
    # Of each image, (n, 3): the index of its file, and the bytes before and in it there; -1 bytes
    # are the whole file.
    parts: NDArray[np.int64]
    # Size and time of each shard when its headers were read, by its path.
    stamps: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def names(self) -> Sequence[str]:
        """File name of each image without its ending; ImageNet has none of them twice."""
        return [splitext(basename(title))[0] for title in self.titles]

    @property
    def block(self) -> int:
        """Neighbouring images that stay together in the order of a training."""
        return BLOCK if self.stamps else 1

    def subset(self, indices: Sequence[int]) -> "ImageSource":
        """Only the images at ``indices``, in that order; the classes stay."""
        return dataclasses.replace(
            self,
            labels=[self.labels[i] for i in indices],
            titles=[self.titles[i] for i in indices],
            parts=self.parts[np.asarray(indices, dtype=np.int64)],
        )

    def training_batches(
        self, views: Views, order: StepBatches, workers: int, pin_memory: bool = False
    ) -> Iterable[Batch]:
        """One batch for each step from ``order.start`` to the end; unreadable images replaced.

        ``views`` is called in the workers; 0 of them load in this process. Shards come in blocks.
        """
        if order.rank == 0 and self.stamps:
            self._warn_if_sorted()
        order = dataclasses.replace(order, block=self.block)
        images = TrainingImages(self, views)
        return _batches(images, workers, batch_sampler=order, pin_memory=pin_memory)

    def evaluation_batches(
        self, transform: Transform, batch_size: int, workers: int, rank: int = 0, size: int = 1
    ) -> Iterable[Batch]:
        """Process ``rank``'s share of the images, each once; unreadable ones are named."""
        share = [i for i in range(len(self)) if i // self.block % size == rank]
        images = EvaluationImages(self.subset(share), transform)
        return _batches(images, workers, batch_size=batch_size)

    def load(self, indices: Sequence[int]) -> Iterator[Image.Image | None]:
        """The images at ``indices`` as RGB; None for each that cannot be read.

        Neighbours in a shard are read at once. A UserError if a shard has changed meanwhile.
        """
        file, begin, size = self.parts[np.asarray(indices, dtype=np.int64)].T
        end = begin + size
        gap = begin[1:] - end[:-1]
        apart = (np.diff(file) != 0) | (gap < 0) | (gap > GAP)
        for run in np.split(np.arange(len(file)), np.flatnonzero(apart) + 1):
            if not len(run):
                continue  # of no indices
            first = begin[run[0]]
            content = self._read(self.files[file[run[0]]], first, end[run[-1]])
            for i in run:
                whole = size[i] < 0
                yield _decode(content if whole else content[begin[i] - first : end[i] - first])

    def _read(self, path: str, begin: int, end: int) -> bytes:
        stamp = self.stamps.get(path)
        try:
            with open(path, "rb") as file:
                if stamp is not None:
                    found = os.fstat(file.fileno())
                    if (found.st_size, found.st_mtime_ns) != stamp:
                        raise UserError(
                            f"{path} is no longer what it was when the run began; the same "
                            "command reads the shards again."
                        )
                    file.seek(begin)
                return file.read(end - begin)
        except OSError as error:
            if stamp is None:
                return b""  # one image that cannot be read
            raise UserError(f"{path} cannot be read any more; copy or make it again.") from error

    def _warn_if_sorted(self) -> None:
        labels = np.asarray(self.labels)
        if len(np.unique(labels)) > 2 and np.mean(labels[1:] == labels[:-1]) > 0.5:
            log.warning(
                "%s: most images follow one of their own class, so the shards were written class "
                "by class and batches will hold few classes; shuffle the images and write them "
                "again",
                self.description,
            )


class TrainingImages(Dataset[Sample]):
    """Views of images by (epoch, index); the next one replaces one that cannot be read."""

    def __init__(self, source: ImageSource, views: Views) -> None:
        self.source, self.views = source, views

    def __getitems__(self, keys: list[tuple[int, int]]) -> list[Sample]:
        """The samples of a batch; a UserError if no image at all can be read."""
        images = self.source.load([index for _, index in keys])
        return [self._sample(*key, image) for key, image in zip(keys, images, strict=True)]

    def _sample(self, epoch: int, index: int, image: Image.Image | None) -> Sample:
        source = self.source
        skipped: list[str] = []
        while image is None:
            skipped.append(source.titles[index])
            if len(skipped) == len(source):
                raise UserError(
                    f"none of the {len(source)} images of {source.description} can be read; are "
                    "they image files?"
                )
            index = (index + 1) % len(source)
            (image,) = source.load([index])
        return self.views(image, epoch, index), source.labels[index], skipped


class EvaluationImages(Dataset[Sample]):
    """One view of each image by its index; of an unreadable one only the name."""

    def __init__(self, source: ImageSource, transform: Transform) -> None:
        self.source, self.transform = source, transform

    def __len__(self) -> int:
        return len(self.source)

    def __getitems__(self, indices: list[int]) -> list[Sample]:
        """The samples of a batch."""
        source = self.source
        return [
            ((), source.labels[index], [source.titles[index]])
            if image is None
            else ((self.transform(image),), source.labels[index], [])
            for index, image in zip(indices, source.load(indices), strict=True)
        ]


def from_folder(folder: Path) -> ImageSource:
    """Images of class folders in torchvision's order: sorted classes, sorted files in each.

    FileNotFoundError if there is no class folder.
    """
    found = ImageFolder(folder, allow_empty=True)
    files = [path for path, _ in found.samples]
    count = len(files)
    return ImageSource(
        description=str(folder),
        classes=found.classes,
        labels=[label for _, label in found.samples],
        titles=files,
        files=files,
        parts=np.column_stack([np.arange(count), np.zeros(count, int), np.full(count, -1)]),
    )


def from_shards(shards: Sequence[Path]) -> ImageSource:
    """Images of tar files, in the order of the shards and of their members.

    They should have been shuffled when they were written, as is usual: a training has neighbours
    in the same batch. A ``classes.txt`` beside the first may name the classes, one a line.
    """
    contents = read_index(shards)
    labels = [label for part in contents for label in part.labels]
    others = f" and {len(shards) - 1} other shards" if len(shards) > 1 else ""
    return ImageSource(
        description=f"{shards[0]}{others}",
        classes=class_names(shards[0].parent, max(labels) + 1),
        labels=labels,
        titles=[
            f"{shard.name}/{key}"
            for shard, part in zip(shards, contents, strict=True)
            for key in part.keys
        ],
        files=[str(shard) for shard in shards],
        parts=np.concatenate(
            [
                np.column_stack([np.full(len(part.keys), number), part.offsets, part.sizes])
                for number, part in enumerate(contents)
            ]
        ),
        stamps={str(s): part.stamp for s, part in zip(shards, contents, strict=True)},
    )


def warn_of_skipped(names: list[str]) -> int:
    """Warn by name of every image that could not be read; how many there were."""
    for name in names:
        log.warning("skipped an unreadable image: %s", name)
    return len(names)


def _decode(content: bytes) -> Image.Image | None:
    try:
        with Image.open(io.BytesIO(content)) as image:
            return image.convert("RGB")
    except UNREADABLE:
        return None


def _collate(samples: Sequence[Sample]) -> Batch:
    whole = [(views, label) for views, label, _ in samples if views]
    return Batch(
        tuple(default_collate([views for views, _ in whole])) if whole else (),
        torch.tensor([label for _, label in whole], dtype=torch.int64),
        [name for _, _, skipped in samples for name in skipped],
    )


def _batches(dataset: Dataset[Sample], workers: int, **how: Any) -> Iterator[Batch]:
    """Batches of a data set; a worker's UserError is raised here as it was there."""
    loader = DataLoader(
        dataset,
        num_workers=workers,
        collate_fn=_collate,
        worker_init_fn=outlive_sigterm,
        generator=torch.Generator(),  # or a loader would draw from the stream of the model
        **how,
    )
    return items_of(loader)
