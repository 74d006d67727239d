"""Images of folders and of shards: parts, order, resume, and images that cannot be read."""

import logging
from collections import Counter
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.datasets import ImageFolder

from common.errors import UserError
from pretrain.augment import RandomViews, byol_views, centre_crop
from pretrain.data import images
from pretrain.data.images import ImageSource, from_folder, from_shards
from pretrain.data.locate import open_images
from pretrain.data.order import StepBatches
from tests.pretrain.data.helpers import (
    picture,
    same,
    sample,
    telling_transform,
    telling_views,
    told,
    write_folder,
    write_shards,
    write_tar,
)

Damaged = Callable[[set[int]], ImageSource]

SIZES = [7, 1, 12, 5, 9]  # images of each shard
COUNT = sum(SIZES)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> ImageSource:
    """Five shards; the image at an index is the picture of that number."""
    return from_shards(write_shards(tmp_path_factory.mktemp("shards"), SIZES))


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "BLOCK", 4)


@pytest.fixture(params=["folder", "shards"])
def damaged(request: pytest.FixtureRequest, tmp_path: Path) -> Damaged:
    """Make eight images of which some are no images; of a folder or of two shards."""

    def make(unreadable: set[int]) -> ImageSource:
        if request.param == "folder":
            (tmp_path / "a").mkdir()
            for n in range(8):
                content = picture(n)[: 40 * (n % 2)] if n in unreadable else picture(n)
                (tmp_path / "a" / f"n{n:04}.png").write_bytes(content)
            return from_folder(tmp_path)
        bad = {n: {"png": picture(n)[:40] if n % 2 else b"nothing"} for n in unreadable}
        samples = [sample(n) | bad.get(n, {}) for n in range(8)]
        return from_shards([write_tar(tmp_path / f"{i}.tar", samples[4 * i :][:4]) for i in (0, 1)])

    return make


def test_images_of_a_folder_are_torchvisions(demo_root: Path) -> None:
    found = ImageFolder(demo_root / "imagenet" / "train")
    source = open_images("demo")
    assert (source.classes, source.labels) == (found.classes, found.targets)
    assert source.files == source.titles == [path for path, _ in found.imgs]
    assert source.names == [Path(path).stem for path, _ in found.imgs]
    assert len(source) == len(found)


def test_a_folder_without_images_is_an_empty_source(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    source = from_folder(tmp_path)
    assert (len(source), list(source.names), source.classes) == (0, [], ["a"])
    assert list(source.evaluation_batches(telling_transform, 4, 0)) == []


def test_images_of_any_mode_are_seen_in_colour(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for mode in ("L", "P", "RGBA", "CMYK", "1"):
        suffix = "jpg" if mode == "CMYK" else "png"
        Image.new(mode, (40, 40), 1).save(tmp_path / "a" / f"{mode}.{suffix}")
    (batch,) = from_folder(tmp_path).evaluation_batches(centre_crop(32), 5, 0)
    assert batch.views[0].shape == (5, 3, 32, 32) and batch.skipped == []


def check_against_folder(folder: ImageSource, shards: ImageSource) -> None:
    """Names, labels, training views and evaluation views are those of the image files."""
    assert (list(shards.names), list(shards.labels)) == (list(folder.names), list(folder.labels))
    order = StepBatches(len(folder), 8, 2, 2)
    views = RandomViews(byol_views(32), seed=2)
    with mock.patch.object(images, "BLOCK", 1):  # the order of a folder
        both = [list(s.training_batches(views, order, 1)) for s in (folder, shards)]
    assert same(*both)
    assert same(*(list(s.evaluation_batches(centre_crop(32), 8, 0)) for s in (folder, shards)))


def test_images_of_shards_are_those_of_a_folder(tmp_path: Path, demo_root: Path) -> None:
    whole = open_images("demo")
    folder = whole.subset(range(0, len(whole), len(whole) // 40))
    check_against_folder(folder, from_shards(write_folder(folder, tmp_path, 9)))


def test_real_images_of_shards_are_those_of_a_folder(tmp_path: Path, real_data: Path) -> None:
    whole = from_folder(real_data / "imagenet" / "train")
    folder = whole.subset(range(0, len(whole), 9))
    write_folder(folder, tmp_path, 25)
    check_against_folder(folder, open_images(str(tmp_path)))


def test_a_subset_keeps_its_order_and_the_classes_and_reads_neighbours_at_once(
    shards: ImageSource,
) -> None:
    part = shards.subset([30, 9, 10, 11, 2, 9]).subset([1, 2, 3, 5, 0])  # 9, 10, 11, 9, 30
    assert part.names == ["n0009", "n0010", "n0011", "n0009", "n0030"]
    assert part.labels == [4, 0, 1, 4, 0]
    assert part.classes == shards.classes and len(part) == 5 and len(shards) == COUNT
    with mock.patch("builtins.open", side_effect=open) as opened:
        (batch,) = part.evaluation_batches(telling_transform, 9, 0)
    assert batch.views[0].flatten().tolist() == [9, 10, 11, 9, 30]
    read = [Path(call.args[0]).name for call in opened.call_args_list if "tar" in str(call.args[0])]
    assert read == ["train-002.tar", "train-002.tar", "train-004.tar"]


@settings(deadline=None, max_examples=30)
@given(share=st.integers(1, 6), world=st.integers(1, 3), at=st.floats(0, 1), data=st.data())
def test_an_epoch_of_shards_has_every_image_once_and_resumes_at_any_step(
    shards: ImageSource, share: int, world: int, at: float, data: st.DataObject
) -> None:
    chosen = data.draw(st.none() | st.sets(st.integers(0, COUNT - 1), min_size=18).map(sorted))
    part, numbers = (shards, range(COUNT)) if chosen is None else (shards.subset(chosen), chosen)

    def batches(rank: int, size: int, start: int) -> list[list[list[int]]]:
        order = StepBatches(len(part), share * world, 2, 3, rank, size, start)
        with mock.patch.object(images, "BLOCK", 4):
            return told(list(part.training_batches(telling_views, order, 0)))

    whole, steps = batches(0, 1, 0), len(part) // (share * world)
    start = round(at * 2 * steps)
    ranks = [batches(rank, world, start) for rank in range(world)]
    assert [list(chain(*parts)) for parts in zip(*ranks, strict=True)] == whole[start:]
    for epoch in (0, 1):
        seen = [key for batch in whole[epoch * steps : (epoch + 1) * steps] for key in batch]
        assert len({index for _, _, index in seen}) == len(seen) == steps * share * world
        assert all(e == epoch and numbers[index] == number for number, e, index in seen)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more than there are cores
@pytest.mark.parametrize("unreadable", [set(), {1, 2, 6}])
def test_workers_and_resume_change_nothing(
    damaged: Damaged, small_blocks: None, unreadable: set[int]
) -> None:
    source = damaged(unreadable)
    whole = list(source.training_batches(telling_views, StepBatches(8, 3, 4, 1), 0))
    assert [len(batch.labels) for batch in whole] == [3] * 8
    for workers, start in ((1, 0), (3, 0), (3, 3), (2, 5)):
        order = StepBatches(8, 3, 4, 1, start=start)
        assert same(whole[start:], list(source.training_batches(telling_views, order, workers)))


def test_the_next_image_replaces_an_unreadable_one_which_is_named(damaged: Damaged) -> None:
    source = damaged({2, 3, 7})
    (batch,) = source.training_batches(telling_views, StepBatches(8, 8, 1, 0), 0)
    (keys,) = StepBatches(8, 8, 1, 0, block=source.block)
    expected = [{2: 4, 3: 4, 7: 0}.get(index, index) for _, index in keys]
    assert batch.views[0].tolist() == [[n, 0, n] for n in expected]
    assert batch.labels.tolist() == [source.labels[n] for n in expected]
    assert Counter(batch.skipped) == {
        source.titles[2]: 1,
        source.titles[3]: 2,
        source.titles[7]: 1,
    }


@pytest.mark.parametrize("workers", [0, 1])
def test_nothing_but_unreadable_images_is_an_error(damaged: Damaged, workers: int) -> None:
    batches = damaged(set(range(8))).training_batches(
        telling_views, StepBatches(8, 4, 1, 0), workers
    )
    with pytest.raises(UserError, match=r"^none of the 8 images of .* can be read; .*files\?$"):
        list(batches)


@pytest.mark.parametrize(("size", "workers"), [(1, 0), (1, 2), (2, 0), (3, 1), (9, 0)])
def test_an_evaluation_sees_every_readable_image_once(
    damaged: Damaged, small_blocks: None, size: int, workers: int
) -> None:
    source = damaged({1, 2, 6})
    seen: list[int] = []
    skipped: list[str] = []
    for rank in range(size):
        for batch in source.evaluation_batches(telling_transform, 2, workers, rank, size):
            assert batch.labels.dtype == torch.int64
            numbers = [n for view in batch.views for n in view.flatten().tolist()]
            assert batch.labels.tolist() == [source.labels[n] for n in numbers]
            seen += numbers
            skipped += batch.skipped
    assert sorted(skipped) == [source.titles[i] for i in (1, 2, 6)]
    assert (seen if size == 1 else sorted(seen)) == [0, 3, 4, 5, 7]


@pytest.mark.parametrize("workers", [0, 1])
def test_loading_leaves_the_global_stream_alone(damaged: Damaged, workers: int) -> None:
    source = damaged(set())
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    list(source.training_batches(RandomViews(byol_views(16), 0), StepBatches(8, 4, 1, 0), workers))
    list(source.evaluation_batches(centre_crop(16), 4, workers))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_shard_that_changed_during_the_run_is_named(tmp_path: Path, workers: int) -> None:
    (shard,) = write_shards(tmp_path, [6])
    source = from_shards([shard])
    others = write_tar(tmp_path / "others.tar", map(sample, (0, 1, 2, 4, 3, 5))).read_bytes()
    for content in (shard.read_bytes()[:2000], b"", others):
        shard.write_bytes(content)
        with pytest.raises(UserError, match=r"train-000\.tar is no longer what it was when"):
            list(source.evaluation_batches(telling_transform, 4, workers))
    shard.unlink()
    with pytest.raises(UserError, match=r"train-000\.tar cannot be read any more"):
        list(source.evaluation_batches(telling_transform, 4, workers))


def test_shards_written_class_by_class_are_warned_of(
    tmp_path: Path, shards: ImageSource, caplog: pytest.LogCaptureFixture
) -> None:
    order = StepBatches(30, 5, 1, 0)
    shards.subset(range(30)).training_batches(telling_views, order, 0)
    assert not caplog.records
    by_class = from_shards(
        [write_tar(tmp_path / "s.tar", [sample(n) | {"cls": n // 10} for n in range(30)])]
    )
    with caplog.at_level(logging.WARNING):
        by_class.training_batches(telling_views, order, 0)
    assert "class by class" in caplog.text and "s.tar" in caplog.text
