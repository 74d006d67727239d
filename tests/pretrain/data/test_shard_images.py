"""Images of shards: those of a folder, parts of them, and what becomes of damaged ones."""

from collections import Counter
from itertools import chain
from pathlib import Path
from unittest import mock

import pytest
import torch
from PIL import Image
from torch import Tensor

from common.errors import UserError
from pretrain.augment import RandomViews, byol_views, centre_crop
from pretrain.data import ImageSource, StepBatches, open_images
from pretrain.data.folder import FolderSource
from pretrain.data.shards import ShardSource
from tests.pretrain.data.helpers import (
    same,
    sample,
    telling_transform,
    telling_views,
    told,
    write_folder,
    write_shards,
    write_tar,
)


def check_against_folder(folder: FolderSource, shards: ImageSource) -> None:
    """Names, labels, training views and evaluation views are those of the image files."""
    assert (list(shards.names), list(shards.labels)) == (list(folder.names), list(folder.labels))
    views = RandomViews(byol_views(32), seed=2)

    def tagged(image: Image.Image, epoch: int, index: int) -> tuple[Tensor, ...]:
        return torch.tensor([epoch, index]), *views(image, epoch, index)

    by_key = [
        {
            (*key, label): (view1, view2)
            for batch in source.training_batches(tagged, StepBatches(len(folder), 8, 2, 2), 1)
            for label, key, view1, view2 in zip(
                batch.labels.tolist(), batch.views[0].tolist(), *batch.views[1:], strict=True
            )
        }
        for source in (folder, shards)
    ]
    common = by_key[0].keys() & by_key[1].keys()
    assert len(common) >= 2 * (len(folder) - 2 * 7)  # of two epochs; either left out up to 7
    for key in common:
        assert all(torch.equal(*pair) for pair in zip(by_key[0][key], by_key[1][key], strict=True))
    plain = [list(s.evaluation_batches(centre_crop(32), 8, 0)) for s in (folder, shards)]
    assert same(*plain)


def test_views_are_a_folders(tmp_path: Path, demo_root: Path) -> None:
    whole = open_images("demo")
    assert isinstance(whole, FolderSource)
    folder = whole.subset(range(0, len(whole), len(whole) // 40))
    check_against_folder(folder, ShardSource(write_folder(folder, tmp_path, 9)))


def test_real_images_are_a_folders(tmp_path: Path, real_data: Path) -> None:
    whole = FolderSource(real_data / "imagenet" / "train")
    folder = whole.subset(range(0, len(whole), 9))
    write_folder(folder, tmp_path, 25)
    check_against_folder(folder, open_images(str(tmp_path)))


def test_a_subset_opens_only_its_shards(tmp_path: Path) -> None:
    source = ShardSource(write_shards(tmp_path, [7, 1, 12, 5, 9]))
    part = source.subset([30, 2, 9]).subset([2, 0])  # 9 and 30
    assert (part.names, part.labels) == (["n0009", "n0030"], [4, 0])
    assert part.classes == source.classes and len(part) == 2
    with mock.patch("builtins.open", side_effect=open) as opened:
        (batch,) = part.evaluation_batches(telling_transform, 9, 0)
    assert batch.views[0].tolist() == [[9], [30]]
    assert [call.args[0].name for call in opened.call_args_list if "tar" in str(call.args[0])] == [
        "train-002.tar",
        "train-004.tar",
    ]
    with pytest.raises(ValueError, match="twice"):
        source.subset([1, 2, 1])


def damaged(folder: Path, unreadable: set[int], images: int = 8) -> ShardSource:
    """Two shards of ``images`` in all, some of them no images."""
    samples = [sample(n) | ({"png": b"nothing"} if n in unreadable else {}) for n in range(images)]
    half = images // 2
    shards = [write_tar(folder / f"{i}.tar", samples[i * half :][:half]) for i in (0, 1)]
    return ShardSource(shards)


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_images_are_replaced_and_named(tmp_path: Path, workers: int) -> None:
    source = damaged(tmp_path, {1, 6})
    batches = list(source.training_batches(telling_views, StepBatches(8, 2, 2, 0), workers))
    assert [len(batch.labels) for batch in batches] == [2] * 8
    for epoch in (0, 1):
        four = batches[4 * epoch : 4 * epoch + 4]
        assert sorted(chain(*(b.skipped for b in four))) == ["0.tar/n0001", "1.tar/n0006"]
        numbers = Counter(n for n, _, _ in chain(*told(four)))
        assert numbers.keys() == {0, 2, 3, 4, 5, 7} and max(numbers.values()) <= 3


def test_an_evaluation_leaves_unreadable_images_out(tmp_path: Path) -> None:
    batches = list(damaged(tmp_path, {1, 2, 6}).evaluation_batches(telling_transform, 1, 0))
    assert [n for b in batches for v in b.views for n in v[:, 0].tolist()] == [0, 3, 4, 5, 7]
    assert [name for b in batches for name in b.skipped] == [
        "0.tar/n0001",
        "0.tar/n0002",
        "1.tar/n0006",
    ]
    assert sum(len(b.labels) for b in batches) == 5


@pytest.mark.parametrize("workers", [0, 1])
def test_nothing_but_unreadable_images_is_an_error(tmp_path: Path, workers: int) -> None:
    source = damaged(tmp_path, set(range(8)))
    with pytest.raises(UserError, match=r"^none of the 8 images .*\.tar/n000. can.*files\?$"):
        list(source.training_batches(telling_views, StepBatches(8, 4, 1, 0), workers))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_shard_that_changed_during_the_run_is_named(tmp_path: Path, workers: int) -> None:
    (shard,) = write_shards(tmp_path, [6])
    source = ShardSource([shard])
    whole = shard.read_bytes()
    others = write_tar(tmp_path / "others.tar", map(sample, (0, 1, 2, 4, 3, 5))).read_bytes()
    fewer = write_tar(tmp_path / "fewer.tar", map(sample, range(3))).read_bytes()
    for content, complaint in [
        (whole[: len(whole) // 2], r"train-000\.tar cannot be read any more"),
        (b"", r"train-000\.tar cannot be read any more"),
        (others, r"train-000\.tar/n0003 is no longer where it was"),
        (fewer, r"train-000\.tar/n0003 is no longer where it was"),
    ]:
        shard.write_bytes(content)
        with pytest.raises(UserError, match=complaint):
            list(source.evaluation_batches(telling_transform, 4, workers))
    shard.unlink()
    with pytest.raises(UserError, match=r"train-000\.tar cannot be read any more"):
        list(source.evaluation_batches(telling_transform, 4, workers))
