"""Small images, shards of them, and views that tell their image."""

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
import webdataset
from PIL import Image
from torch import Tensor

from pretrain.data.images import Batch, ImageSource


def picture(number: int) -> bytes:
    """A PNG file of one colour: (number, 7, 9)."""
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (number, 7, 9)).save(file, "PNG")
    return file.getvalue()


def sample(number: int, classes: int = 5) -> dict[str, Any]:
    """A WebDataset sample: ``picture(number)`` of the class number % classes."""
    return {"__key__": f"n{number:04}", "png": picture(number), "cls": number % classes}


def write_shards(folder: Path, sizes: Sequence[int], name: str = "train") -> list[Path]:
    """Shards of these many samples, numbered from 0 through all of them."""
    folder.mkdir(parents=True, exist_ok=True)
    shards, first = [], 0
    for number, size in enumerate(sizes):
        shards.append(folder / f"{name}-{number:03}.tar")
        write_tar(shards[-1], map(sample, range(first, first + size)))
        first += size
    return shards


def write_tar(shard: Path, samples: Iterable[dict[str, Any]]) -> Path:
    """A shard of these samples."""
    with webdataset.TarWriter(str(shard)) as writer:
        for each in samples:
            writer.write(each)
    return shard


def write_folder(source: ImageSource, folder: Path, per_shard: int) -> list[Path]:
    """Shards of a folder's image files, in its order and with its class numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    pattern = str(folder / "train-%03d.tar")
    with webdataset.ShardWriter(pattern, maxcount=per_shard, verbose=0) as writer:
        for path, name, label in zip(source.titles, source.names, source.labels, strict=True):
            suffix = Path(path).suffix.lower().removeprefix(".")
            writer.write({"__key__": name, suffix: Path(path).read_bytes(), "cls": label})
    return sorted(folder.glob("*.tar"))


def number_of(image: Image.Image) -> int:
    """The number of a picture."""
    red = image.getpixel((0, 0))
    assert isinstance(red, tuple)
    return int(red[0])


def telling_views(image: Image.Image, epoch: int, index: int) -> tuple[Tensor, ...]:
    """One tensor (3,): the picture's number, epoch and index."""
    return (torch.tensor([number_of(image), epoch, index]),)


def telling_transform(image: Image.Image) -> Tensor:
    """A tensor (1,): the picture's number."""
    return torch.tensor([number_of(image)])


def told(batches: Sequence[Batch]) -> list[list[list[int]]]:
    """[number, epoch, index] of each image of each batch."""
    return [batch.views[0].tolist() for batch in batches]


def same(batches: Sequence[Batch], others: Sequence[Batch]) -> bool:
    """True if all images, labels and skipped names of the batches are equal."""
    return len(batches) == len(others) and all(
        torch.equal(a.labels, b.labels)
        and a.skipped == b.skipped
        and all(torch.equal(x, y) for x, y in zip(a.views, b.views, strict=True))
        for a, b in zip(batches, others, strict=True)
    )
