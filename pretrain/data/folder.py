"""ImageFolder data in a seeded order that depends on neither processes nor interruptions."""

import os
from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, Sampler
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import IMG_EXTENSIONS

import demo
from common.errors import UserError
from pretrain.augment import TwoViews

DEMO = "demo"


def locate(data: str | None) -> Path:
    """The folder of training images, one sub-folder a class, that ``--data`` means.

    Args:
        data: a folder with ``train/`` in it, or of classes; ``demo`` for the embedded set;
            None for the environment variable ``IMAGENET_DIR``.

    Raises:
        UserError: if there is no such folder or no image in it.
    """
    if data == DEMO:
        return demo.ensure() / "imagenet" / "train"
    if not data:
        data = os.environ.get("IMAGENET_DIR")
        if not data:
            raise UserError(
                "no training images: give --data FOLDER, set IMAGENET_DIR, or use "
                "--data demo for the embedded set."
            )
    folder = Path(data).expanduser().resolve()
    if not folder.is_dir():
        raise UserError(f"--data {data}: no such folder; give the one that has train/ in it.")
    if (folder / "train").is_dir():
        folder = folder / "train"
    if not any(_is_image(path) for path in folder.glob("*/**/*")):
        raise UserError(
            f"no image under a class folder of {folder}; expected "
            f"{folder.name}/<class>/<image>.jpg."
        )
    return folder


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMG_EXTENSIONS


def image_paths(folder: Path) -> list[str]:
    """The images of a folder of classes, in torchvision's order."""
    return [path for path, _ in ImageFolder(folder, allow_empty=True).samples]


def check_enough(images: int, data: str, batch_size: int) -> None:
    """Raise unless there is at least one batch of images.

    Raises:
        UserError: naming both numbers.
    """
    if images < batch_size:
        raise UserError(
            f"--data {data} has {images} images, fewer than --batch-size {batch_size}; choose a "
            "smaller batch."
        )


def steps_per_epoch(data: str, batch_size: int) -> int:
    """The whole batches of an epoch; looks at the folder, which takes a while on ImageNet.

    Raises:
        UserError: if there is none.
    """
    images = len(image_paths(locate(data)))
    check_enough(images, data, batch_size)
    return images // batch_size


class TwoViewDataset(Dataset[tuple[Tensor, Tensor, str]]):
    """Two views of an image, by (epoch, index).

    The next image takes the place of one that cannot be read; the third item of a sample names
    those that were skipped, one a line.
    """

    def __init__(self, folder: Path, image_size: int, seed: int) -> None:
        self.paths = image_paths(folder)
        self.views = TwoViews(image_size)
        self.seed = seed

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor, str]:
        """Two tensors (3, s, s), and the unreadable files on the way to them."""
        epoch, wanted = key
        skipped: list[str] = []
        for index in range(wanted, wanted + len(self)):
            index %= len(self)
            try:
                with Image.open(self.paths[index]) as file:
                    image = file.convert("RGB")
            except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
                skipped.append(self.paths[index])
                continue
            view1, view2 = self.views(image, (self.seed, epoch, index))
            return view1, view2, "\n".join(skipped)
        raise UserError(f"none of the {len(self)} images around {self.paths[0]} can be read.")


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

    def __len__(self) -> int:
        return self.total_steps - self.start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        share = self.batch_size // self.world_size
        order: list[int] = []
        ordered = -1
        for step in range(self.start, self.total_steps):
            epoch, position = divmod(step, self.steps_per_epoch)
            if epoch != ordered:
                generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
                order = torch.randperm(self.images, generator=generator).tolist()
                ordered = epoch
            first = position * self.batch_size + self.rank * share
            yield [(epoch, index) for index in order[first : first + share]]
