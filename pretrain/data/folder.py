"""An ImageFolder: one sub-folder a class, one file an image."""

import copy
from collections.abc import Iterable, Sequence
from os.path import basename, splitext
from pathlib import Path

from torch.utils.data import Dataset
from torchvision.datasets import ImageFolder

from common.errors import UserError
from pretrain.data.loading import Batches, Sample, decode, evaluation_sample
from pretrain.data.order import StepBatches
from pretrain.data.source import Batch, ImageSource, Transform, Views


class FolderSource(ImageSource):
    """Images in torchvision's order: sorted class folders, sorted files in each.

    Attributes:
        paths: file of each image.

    Args:
        folder: the folder of the class folders; one without images is a source of length 0.

    Raises:
        FileNotFoundError: if there is no class folder.
    """

    def __init__(self, folder: Path) -> None:
        found = ImageFolder(folder, allow_empty=True)
        self.description, self.classes = str(folder), found.classes
        self.paths: Sequence[str] = [path for path, _ in found.samples]
        self.labels = [label for _, label in found.samples]
        self.names = [splitext(basename(path))[0] for path in self.paths]

    def subset(self, indices: Sequence[int]) -> "FolderSource":
        """Only the images at ``indices``, in that order; the classes stay."""
        part = copy.copy(self)
        part.paths = [self.paths[i] for i in indices]
        part.labels = [self.labels[i] for i in indices]
        part.names = [self.names[i] for i in indices]
        return part

    def training_batches(
        self, views: Views, order: StepBatches, workers: int, pin_memory: bool = False
    ) -> Iterable[Batch]:
        """One batch for each step from ``order.start`` to the end."""
        return Batches(TrainingImages(self, views), workers, pin_memory, batch_sampler=order)

    def evaluation_batches(
        self, transform: Transform, batch_size: int, workers: int, rank: int = 0, size: int = 1
    ) -> Iterable[Batch]:
        """Every ``size``-th image from ``rank`` on, in order."""
        images = EvaluationImages(self.subset(range(rank, len(self), size)), transform)
        return Batches(images, workers, batch_size=batch_size)


class TrainingImages(Dataset[Sample]):
    """Views of an image by (epoch, index); the next one replaces one that cannot be read."""

    def __init__(self, source: FolderSource, views: Views) -> None:
        self.source, self.views = source, views

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        """The views, the label, and the unreadable files on the way to them.

        Raises:
            UserError: if no image at all can be read.
        """
        epoch, wanted = key
        paths = self.source.paths
        skipped: list[str] = []
        for index in range(wanted, wanted + len(paths)):
            index %= len(paths)
            image = decode(paths[index])
            if image is None:
                skipped.append(paths[index])
                continue
            return self.views(image, epoch, index), self.source.labels[index], skipped
        raise UserError(
            f"none of the {len(paths)} images of {self.source.description} can be read; are they "
            "image files?"
        )


class EvaluationImages(Dataset[Sample]):
    """One view of an image by its index."""

    def __init__(self, source: FolderSource, transform: Transform) -> None:
        self.source, self.transform = source, transform

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Sample:
        """The view and the label, or the name of an unreadable file."""
        path, label = self.source.paths[index], self.source.labels[index]
        return evaluation_sample(decode(path), self.transform, label, path)
