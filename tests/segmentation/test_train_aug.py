"""train_aug is made of SBD's own kind of files, whole or not at all."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from numpy.typing import NDArray
from PIL import Image

from common.errors import UserError
from segmentation import train_aug
from segmentation.masks import read_mask
from segmentation.train_aug import make

SIZE = (13, 17)
# of SBD's images: v in VOC's val, t in VOC's train, s in neither
SBD, TRAIN, VAL = ("s1", "s2", "t1", "v1"), ("t1", "t2"), ("v1", "v2")
WANTED = ("s1", "s2", "t1", "t2")


def save_mat(path: Path, mask: Any) -> None:
    """As in SBD: a struct GTcls of Segmentation, Boundaries and CategoriesPresent, compressed."""
    boundaries = np.empty((20, 1), object)
    boundaries[:] = [[np.zeros(SIZE, bool)]] * 20
    content = {
        "Segmentation": mask,
        "Boundaries": boundaries,
        "CategoriesPresent": np.unique(mask)[1:, None].astype(np.uint8),
    }
    scipy.io.savemat(path, {"GTcls": content}, do_compression=True)


def labels(name: str, seed: int) -> NDArray[np.uint8]:
    key = [seed, *name.encode()]
    return np.random.default_rng(key).integers(0, 21, SIZE).astype(np.uint8)


@pytest.fixture
def sbd(tmp_path: Path) -> Path:
    folder = tmp_path / "benchmark_RELEASE" / "dataset" / "cls"
    folder.mkdir(parents=True)
    for name in SBD:
        save_mat(folder / f"{name}.mat", labels(name, 0))
    return tmp_path / "benchmark_RELEASE"


@pytest.fixture
def voc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "VOC2012"
    for folder in ("ImageSets/Segmentation", "JPEGImages", "SegmentationClass"):
        (root / folder).mkdir(parents=True)
    for split, names in (("train", TRAIN), ("val", VAL)):
        (root / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("\n".join(names) + "\n")
        for name in names:
            mask = labels(name, 1)
            mask[0] = 255
            Image.fromarray(mask).save(root / "SegmentationClass" / f"{name}.png")
    for name in {*SBD, *TRAIN, *VAL}:
        Image.new("RGB", SIZE[::-1]).save(root / "JPEGImages" / f"{name}.jpg")
    monkeypatch.setattr(train_aug, "IMAGES", len(WANTED))
    return root


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


def test_it_makes_masks_and_list(sbd: Path, voc: Path) -> None:
    make(sbd, voc)
    assert (voc / "ImageSets/Segmentation/train_aug.txt").read_text().split() == list(WANTED)
    folder = voc / "SegmentationClassAug"
    assert sorted(path.name for path in folder.iterdir()) == [f"{name}.png" for name in WANTED]
    for name in ("s1", "s2"):
        np.testing.assert_array_equal(read_mask(folder / f"{name}.png", 21, 255), labels(name, 0))
    for name in TRAIN:  # VOC's own, with its border, though SBD has t1 too
        official = (voc / "SegmentationClass" / f"{name}.png").read_bytes()
        assert (folder / f"{name}.png").read_bytes() == official
    assert not [path for path in voc.iterdir() if path.name.startswith(".")]


def test_again_it_finds_the_masks_and_writes_the_list_that_a_kill_left_out(
    sbd: Path, voc: Path
) -> None:
    make(sbd, voc)
    listed = voc / "ImageSets/Segmentation/train_aug.txt"
    before, times = listed.read_text(), {p: p.stat().st_mtime_ns for p in voc.rglob("*.png")}
    listed.unlink()
    (voc / ".SegmentationClassAug.partial").mkdir()
    make(sbd / "dataset", voc)
    assert listed.read_text() == before
    assert {p: p.stat().st_mtime_ns for p in voc.rglob("*.png")} == times


def test_another_count_is_refused(sbd: Path, voc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert train_aug.IMAGES == 10_582
    before = files(voc)
    message = r"4 images instead of 10,582, of 4 masks in .* and VOC's 2 train and 2 val images"
    with pytest.raises(UserError, match=message):
        make(sbd, voc)
    assert files(voc) == before


MAT, IMAGE = "benchmark_RELEASE/dataset/cls/s2.mat", "VOC2012/JPEGImages/s1.jpg"
NO_MASK = r"cls/s2\.mat is not a mask of SBD's"
MADE = "VOC2012/SegmentationClassAug"


@pytest.mark.parametrize(
    ("path", "change", "message"),
    [
        (MAT, lambda path: path.write_bytes(path.read_bytes()[:-20]), NO_MASK),
        (MAT, lambda path: save_mat(path, labels("s2", 0) + np.uint8(1)), NO_MASK),
        (MAT, lambda path: save_mat(path, labels("s2", 0)[:-1]), r"s2\.mat is not of the size of"),
        (MAT, lambda path: scipy.io.savemat(path, {"GTinst": np.zeros(3)}), NO_MASK),
        (MAT, lambda path: path.write_text("not a mask"), NO_MASK),
        (IMAGE, Path.unlink, r"JPEGImages lacks 1 images, such as s1\.jpg"),
        (IMAGE, lambda path: path.write_text("none"), r"s1\.jpg is not an image that can be read"),
        ("VOC2012/SegmentationClass/t2.png", Path.unlink, r"mask .*SegmentationClass/t2\.png: "),
        (
            "VOC2012/ImageSets/Segmentation/val.txt",
            Path.unlink,
            r"Segmentation/val\.txt is not there",
        ),
        (MADE, Path.mkdir, r"there already, but lacks 4 of the masks, such as s1\.png"),
        ("VOC2012/.SegmentationClassAug.partial", Path.touch, "cannot write to .*VOC2012: "),
    ],
)
def test_what_is_broken_is_named_and_nothing_is_written(
    tmp_path: Path, sbd: Path, voc: Path, path: str, change: Callable[[Path], Any], message: str
) -> None:
    change(tmp_path / path)
    before = files(voc)
    with pytest.raises(UserError, match=message) as error:
        make(sbd, voc)
    assert "\n" not in str(error.value) and files(voc) == before


def test_the_command(
    sbd: Path, voc: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, status, printed in (
        ([str(sbd), str(voc)], 0, f"4 images in {voc}/ImageSets/Segmentation/train_aug.txt\n"),
        ([str(voc), str(voc)], 2, f"error: {voc} has no dataset/cls"),
    ):
        monkeypatch.setattr(sys, "argv", ["train_aug", *words])
        with pytest.raises(SystemExit) as ended:
            train_aug.main()
        output = capsys.readouterr()
        assert ended.value.code == status
        assert printed in output.out + output.err
