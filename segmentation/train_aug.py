"""Creation of train_aug2012: VOC's train images and those with a mask in SBD, without VOC's val.

``python -m segmentation.train_aug SBD VOC2012`` writes ``SegmentationClassAug/*.png`` and
``ImageSets/Segmentation/train_aug.txt`` into the folder VOC2012. SBD is the release of Hariharan et
al., "Semantic Contours from Inverse Detectors", ICCV 2011: ``dataset/cls/*.mat``. VOC's own masks
have precedence, with their border; SBD's have none. 10,582 images in all (MoCo, arXiv 1911.05722,
appendix A.5).
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import scipy.io
import tyro
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from common.command_line import parse
from common.errors import UserError, command
from common.files import atomic_write
from segmentation.masks import CLASSES, IGNORE, read_mask

IMAGES = 10_582


def make(sbd: tyro.conf.Positional[Path], voc: tyro.conf.Positional[Path]) -> None:
    """Write the masks and the list of VOC 2012's train_aug, whole or not at all.

    Args:
        sbd: SBD's folder, which has dataset/cls.
        voc: The folder VOC2012.

    Raises:
        UserError: if a file is missing or unreadable, there are not 10,582 images, or something
            else is where the masks belong; nothing is written then.
    """
    mats = _mats(sbd)
    lists = voc / "ImageSets" / "Segmentation"
    train, val = (_read_list(lists / f"{split}.txt") for split in ("train", "val"))
    names = sorted((mats.keys() | set(train)) - set(val))
    if len(names) != IMAGES:
        raise UserError(
            f"train_aug would have {len(names):,} images instead of {IMAGES:,}, of {len(mats):,} "
            f"masks in {sbd} and VOC's {len(train):,} train and {len(val):,} val images; are both "
            "unpacked whole?"
        )
    missing = [n for n in names if not (voc / "JPEGImages" / f"{n}.jpg").exists()]
    if missing:
        raise UserError(
            f"{voc / 'JPEGImages'} lacks {len(missing):,} images, such as {missing[0]}.jpg; unpack "
            "VOC2012's trainval again."
        )
    folder = voc / "SegmentationClassAug"
    if not _is_made(folder, names):
        with _appearing(folder) as partial:
            official = set(train)
            for name in tqdm(names, unit="mask", disable=None):
                if name in official:
                    _copy(voc / "SegmentationClass" / f"{name}.png", partial)
                else:
                    _convert(mats[name], voc / "JPEGImages" / f"{name}.jpg", partial)
    with atomic_write(lists / "train_aug.txt", "w") as file:
        file.writelines(f"{name}\n" for name in names)
    print(f"{len(names):,} images in {lists / 'train_aug.txt'}")


def read_sbd(path: Path) -> NDArray[np.uint8]:
    """The class index of each pixel (height, width) in an SBD file, 0 for the background."""
    try:
        mask = scipy.io.loadmat(path)["GTcls"]["Segmentation"][0, 0]
    except Exception as error:  # SciPy raises almost anything for a file that was cut short
        reason = " ".join(str(error).split())
        raise UserError(f"{path} is not a mask of SBD's ({reason}); unpack it again.") from error
    classes = range(len(CLASSES))
    if mask.ndim != 2 or mask.dtype.kind not in "iu" or not np.isin(mask, classes).all():
        raise UserError(
            f"{path} is not a mask of SBD's: its values are not classes from 0 to 20; unpack it "
            "again."
        )
    return np.asarray(mask, np.uint8)


def _mats(sbd: Path) -> dict[str, Path]:
    for folder in (sbd / "dataset" / "cls", sbd / "cls"):
        found = {path.stem: path for path in folder.glob("*.mat")}
        if found:
            return found
    raise UserError(
        f"{sbd} has no dataset/cls/*.mat; give the folder that SBD's benchmark.tgz unpacks to."
    )


def _read_list(path: Path) -> list[str]:
    if not path.exists():
        raise UserError(f"{path} is not there; give the folder VOC2012 of the VOC release.")
    return path.read_text().split()


def _is_made(folder: Path, names: list[str]) -> bool:
    """True if a folder has these masks already; one that lacks some is not ours to change."""
    if not folder.exists():
        return False
    lacking = {f"{name}.png" for name in names} - set(os.listdir(folder))
    if lacking:
        raise UserError(
            f"{folder} is there already, but lacks {len(lacking):,} of the masks, such as "
            f"{min(lacking)}; move it away first."
        )
    return True


@contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    """A neighbour of ``folder`` to write to, which takes its place if nothing is raised."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
    try:
        partial.mkdir()
    except OSError as error:
        raise UserError(f"cannot write to {folder.parent}: {error.strerror}.") from error
    try:
        yield partial
        os.rename(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _copy(mask: Path, folder: Path) -> None:
    try:
        read_mask(mask, len(CLASSES), IGNORE)
    except OSError as error:
        raise UserError(f"{error}; unpack VOC2012's trainval again.") from error
    shutil.copyfile(mask, folder / mask.name)


def _convert(mat: Path, image: Path, folder: Path) -> None:
    mask = read_sbd(mat)
    try:
        with Image.open(image) as opened:
            size = opened.size
    except (OSError, SyntaxError) as error:
        raise UserError(
            f"{image} is not an image that can be read ({error}); unpack VOC2012's trainval again."
        ) from error
    if size != mask.shape[::-1]:
        raise UserError(f"{mat} is not of the size of {image}; are both of VOC 2012?")
    Image.fromarray(mask).save(folder / f"{mat.stem}.png")


@command
def main() -> None:
    """``python -m segmentation.train_aug SBD VOC2012``."""
    parse(make, "python -m segmentation.train_aug")


if __name__ == "__main__":
    main()
