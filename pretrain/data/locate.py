"""Meaning of ``--data`` and ``--val-data``: a folder of classes, shards, or the embedded set."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from braceexpand import braceexpand

import demo
from common.errors import UserError
from pretrain.data.shards import IMAGE_SUFFIXES

if TYPE_CHECKING:
    from pretrain.data.images import ImageSource

DEMO = "demo"
Split = Literal["train", "val"]


def open_images(data: str | None, split: Split = "train", option: str = "--data") -> "ImageSource":
    """The images of a split; ``data`` as for :func:`locate`, given with ``option``.

    Looks at every file's name, or the first time at the headers of every shard, which takes a
    while on ImageNet.
    """
    from pretrain.data import images

    place = locate(data, split, option)
    shards = _shards(place, split)
    return images.from_shards(shards) if shards else images.from_folder(place)


def open_validation(data: str | None, val_data: str | None) -> "ImageSource | None":
    """The validation images: of ``--val-data``, or those beside the training images.

    Beside means: in ``val/`` next to ``train/``, or shards named ``*val*`` in the folder of the
    training shards. None if there are neither.
    """
    if val_data is not None:
        return open_images(val_data, "val", "--val-data")
    if data == DEMO:
        return open_images(DEMO, "val")
    from pretrain.data import images

    place = locate(data, "train")
    folder = place if place.is_dir() else place.parent
    if folder.name == "train" and (folder.parent / "val").is_dir():
        return open_images(str(folder.parent), "val")
    training = _shards(place, "train")
    beside = [tar for tar in _tars(folder) if _split_of(tar) == "val" and tar not in training]
    return images.from_shards(beside) if training and beside else None


def locate(data: str | None, split: Split = "train", option: str = "--data") -> Path:
    """The absolute folder of a split's images or shards, or pattern of its shards.

    Args:
        data: a folder of classes; a folder of shards, named ``*train*.tar`` and ``*val*.tar`` if
            both splits are in it; a folder with ``train/`` and ``val/`` of either kind in it; a
            shard; a brace pattern of shards, such as ``imagenet-train-{000..146}.tar``; ``demo``
            for the embedded set; None for the environment variable ``IMAGENET_DIR``.
        split: ``train`` or ``val``.
        option: what the user gave ``data`` with, for error messages.
    """
    if data == DEMO:
        return demo.ensure() / "imagenet" / split
    if not data:
        data, option = os.environ.get("IMAGENET_DIR"), "IMAGENET_DIR"
    if not data:
        raise UserError(
            "no training images: give --data FOLDER, set IMAGENET_DIR, or use --data demo for the "
            "embedded set."
        )
    # Not Path.resolve(): a shard may be a link to a file without a name.
    place = Path(os.path.abspath(Path(data).expanduser()))
    if not place.is_dir():
        if "{" not in data and place.suffix != ".tar":
            raise UserError(
                f"{option} {data}: no such folder; give the one that has {split}/ in it, or shards."
            )
        _shards(place, split)
        return place
    folder = place.resolve()
    if (folder / split).is_dir():
        folder = folder / split
    else:
        _check_classes(folder, data, option, split)
    if not _has_images(folder) and not _shards(folder, split):
        raise UserError(
            f"no image under a class folder of {folder}, and no shard of {split} images in it; "
            f"expected {folder.name}/<class>/<image>.jpg or {folder.name}/<shard>.tar."
        )
    return folder


def _check_classes(folder: Path, data: str, option: str, split: Split) -> None:
    """Raise if a folder has splits in it where classes are expected, as COCO's own has."""
    named = sorted(path.name for path in folder.iterdir() if path.is_dir())
    splits = [name for name in named if name.lower().startswith(("train", "val", "test"))]
    if len(splits) > 1:
        raise UserError(
            f"{option} {data} has no {split}/, and {splits[0]}/ and {splits[1]}/ are no classes; "
            f"give the folder that has {split}/<class>/<image>, or the classes' own."
        )


def _has_images(folder: Path) -> bool:
    return any(path.suffix.lower() in IMAGE_SUFFIXES for path in folder.glob("*/*"))


def _shards(place: Path, split: Split) -> list[Path]:
    """The shards that a pattern means, or of a split in a folder; none in a folder of classes."""
    if not place.is_dir():
        return _expand(str(place))
    if _has_images(place):  # tar files beside class folders are what those came from
        return []
    tars = _tars(place)
    named = [tar for tar in tars if _split_of(tar) == split]
    unnamed = [tar for tar in tars if _split_of(tar) is None]
    return named or unnamed or (tars if place.name == split else [])


def _expand(pattern: str) -> list[Path]:
    try:
        shards = [Path(path) for path in dict.fromkeys(braceexpand(pattern))]
    except ValueError as error:
        raise UserError(f"{pattern}: a brace is open; write {{000..146}}.") from error
    missing = [shard for shard in shards if not shard.is_file()]
    if len(missing) == len(shards):
        raise UserError(
            f"{pattern}: no shard matches; give a .tar file, a pattern such as "
            "train-{000..146}.tar, or a folder."
        )
    if missing:
        raise UserError(
            f"{len(missing)} of the {len(shards)} shards {pattern} are missing, the "
            f"first of them {missing[0]}; copy them, or name those that are there."
        )
    return shards


def _tars(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.tar") if path.is_file())


def _split_of(shard: Path) -> Split | None:
    """The split that the name of a shard tells."""
    name = shard.name.lower()
    return "train" if "train" in name else "val" if "val" in name else None


def check_enough(images: int, data: str, batch_size: int) -> None:
    """Raise a UserError unless there is at least one batch of images."""
    if images < batch_size:
        raise UserError(
            f"--data {data} has {images} images, fewer than --batch-size {batch_size}; choose a "
            "smaller batch."
        )
