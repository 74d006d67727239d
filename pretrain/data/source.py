"""What every kind of data set is to a training: names, labels, and loaders of batches."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from PIL import Image
from torch import Tensor

from pretrain.data.order import StepBatches

Views = Callable[[Image.Image, int, int], tuple[Tensor, ...]]
"""(RGB image, epoch, index) -> tensors (3, s, s): the same for the same epoch and index."""

Transform = Callable[[Image.Image], Tensor]
"""RGB image -> tensor (3, s, s), without randomness."""


class Batch(NamedTuple):
    """One step's images of one process.

    Attributes:
        views: tensors (b, 3, s, s), one for each view; none at all where an evaluation could
            read no image of the batch.
        labels: class indices (b,), int64.
        skipped: images that could not be read: a training put others in their places, an
            evaluation left them out.
    """

    views: tuple[Tensor, ...]
    labels: Tensor
    skipped: list[str]


class ImageSource(ABC):
    """The labelled images of one split.

    Attributes:
        description: the folder or shards, as an error message names them.
        names: file name of each image without its ending; ImageNet has none of them twice.
        labels: class index of each image.
        classes: name of each class, by its index.
    """

    description: str
    names: Sequence[str]
    labels: Sequence[int]
    classes: Sequence[str]

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def subset(self, indices: Sequence[int]) -> "ImageSource":
        """Only the images at ``indices``, in that order; the classes stay."""

    @abstractmethod
    def training_batches(
        self, views: Views, order: StepBatches, workers: int, pin_memory: bool = False
    ) -> Iterable[Batch]:
        """One batch for each step from ``order.start`` to the end; unreadable images replaced.

        Args:
            views: makes the views of an image; called in the workers.
            order: which images of which epoch each batch has; of shards, only how many.
            workers: processes that load; 0 loads in this one.
            pin_memory: whether batches lie in page-locked memory, for faster copies to a GPU.
        """

    @abstractmethod
    def evaluation_batches(
        self, transform: Transform, batch_size: int, workers: int, rank: int = 0, size: int = 1
    ) -> Iterable[Batch]:
        """Process ``rank``'s share of the images, each once, with one view; unreadable ones
        are left out and named.
        """
