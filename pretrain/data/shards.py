"""WebDataset shards: tar files whose members ``<key>.jpg`` and ``<key>.cls`` are one sample."""

import copy
import logging
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from webdataset.tariterators import group_by_keys, tar_file_expander

from common.errors import UserError
from pretrain.data.loading import Batches
from pretrain.data.order import StepBatches
from pretrain.data.shard_index import image_of, read_index
from pretrain.data.shard_streams import EvaluationStream, TrainingStream
from pretrain.data.source import Batch, ImageSource, Transform, Views

log = logging.getLogger(__name__)

CLASS_NAMES = "classes.txt"


class ShardSource(ImageSource):
    """Images in the order of the shards and of their members.

    Reading is sequential, so the order of a training is random in a coarser way than a folder's:
    shards in a random order, and a buffer of 1000 images in each worker. Shards must have
    been shuffled when they were written, as is usual; :meth:`training_batches` warns otherwise.

    Attributes:
        shards: the tar files.
        keys: what WebDataset calls each image, unique within its shard; ``names`` are the last
            parts of these paths.

    Args:
        shards: tar files; a ``classes.txt`` beside the first may name the classes, one a line.

    Raises:
        UserError: as :func:`pretrain.data.shard_index.read_index`; if classes lack a name.
    """

    def __init__(self, shards: Sequence[Path]) -> None:
        contents = read_index(shards)
        self.shards = tuple(shards)
        others = f" and {len(shards) - 1} other shards" if len(shards) > 1 else ""
        self.description = f"{shards[0]}{others}"
        self.keys = [key for part in contents for key in part.keys]
        self.names = [key.rpartition("/")[2] for key in self.keys]
        self.labels = [label for part in contents for label in part.labels]
        self.classes = _class_names(shards[0].parent / CLASS_NAMES, max(self.labels) + 1)
        sizes = [len(part.keys) for part in contents]
        self._offset = np.concatenate([part.offsets for part in contents])
        self._shard = np.repeat(np.arange(len(shards)), sizes)  # of each image
        self._position = np.concatenate([np.arange(size) for size in sizes])  # in its shard

    def subset(self, indices: Sequence[int]) -> "ShardSource":
        """Only the images at ``indices``, in that order; the classes stay.

        Raises:
            ValueError: if an index is there twice.
        """
        if len(set(indices)) < len(indices):
            raise ValueError("a stream gives each image once, but an index is there twice")
        part, chosen = copy.copy(self), np.asarray(indices, dtype=np.intp)
        part.keys, part.names = [self.keys[i] for i in chosen], [self.names[i] for i in chosen]
        part.labels = [self.labels[i] for i in chosen]
        for name in ("_shard", "_position", "_offset"):
            setattr(part, name, getattr(self, name)[chosen])
        return part

    def training_batches(
        self, views: Views, order: StepBatches, workers: int, pin_memory: bool = False
    ) -> Iterable[Batch]:
        """One batch for each step from ``order.start`` to the end; see :class:`TrainingStream`.

        Raises:
            ValueError: if ``order`` is of other images.
        """
        stream = TrainingStream(self, views, order)
        if order.rank == 0:
            self._warn_if_sorted()
        return Batches(stream, workers, pin_memory, batch_size=order.share)

    def evaluation_batches(
        self, transform: Transform, batch_size: int, workers: int, rank: int = 0, size: int = 1
    ) -> Iterable[Batch]:
        """The ``rank``-th of ``size`` equal parts of the images, the same order every time."""
        stream = EvaluationStream(self, transform, rank, size)
        return Batches(stream, workers, batch_size=batch_size)

    def in_order_of(self, shards: Sequence[int]) -> np.ndarray:
        """Indices (n,) of all images: shard by shard as given, in the order of their members."""
        turn = np.empty(len(shards), dtype=np.intp)
        turn[list(shards)] = np.arange(len(shards))
        return np.lexsort((self._position, turn[self._shard]))

    def stream(self, indices: np.ndarray) -> Iterator[tuple[int, bytes]]:
        """Index and file of the images at ``indices``, which :meth:`in_order_of` has ordered.

        Images that are side by side in a shard are read in one go, what lies between is not.

        Raises:
            UserError: if a shard is no longer what it was when its headers were read.
        """
        ends = np.diff(self._shard[indices]) != 0
        ends |= np.diff(self._position[indices]) != 1
        for run in np.split(indices, np.flatnonzero(ends) + 1):
            if len(run):  # no indices are split into one empty run
                first = run[0]
                files = _read(self.shards[self._shard[first]], self._offset[first])
                for index in run.tolist():
                    key, file = next(files, (None, b""))
                    if key != self.keys[index]:
                        raise UserError(
                            f"{self.member(index)} is no longer where it was when the run began; "
                            "the same command reads the shards again."
                        )
                    yield index, file

    def member(self, index: int) -> str:
        """The image at ``index`` as a log line names it: ``shard.tar/key``."""
        return f"{self.shards[self._shard[index]].name}/{self.keys[index]}"

    def _warn_if_sorted(self) -> None:
        labels = np.asarray(self.labels)[self.in_order_of(range(len(self.shards)))]
        if len(np.unique(labels)) > 2 and np.mean(labels[1:] == labels[:-1]) > 0.5:
            log.warning(
                "%s: most images follow one of their own class, so the shards were written class "
                "by class and batches will hold few classes; shuffle the images and write them "
                "again",
                self.description,
            )


def _read(shard: Path, offset: int) -> Iterator[tuple[str, bytes]]:
    """Key and image file of every sample from an offset on, at which a member begins."""
    try:
        with open(shard, "rb") as file:
            file.seek(offset)
            for sample in group_by_keys(tar_file_expander([{"url": str(shard), "stream": file}])):
                image = image_of(sample)
                if image is not None:
                    yield sample["__key__"], image
    except (OSError, tarfile.TarError) as error:
        raise UserError(f"{shard} cannot be read any more; copy or make it again.") from error


def _class_names(file: Path, classes: int) -> list[str]:
    """A line of ``file`` for each class; their numbers if there is no such file."""
    if not file.is_file():
        return [str(label) for label in range(classes)]
    names = [line.strip() for line in file.read_text().splitlines()]
    if len(names) < classes:
        raise UserError(f"{file} has {len(names)} lines for {classes} classes; add the others.")
    return names
