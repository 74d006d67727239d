"""A folder of images: names, parts, and what happens to images that cannot be read."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

from common.errors import UserError
from pretrain.augment import RandomViews, byol_views, centre_crop
from pretrain.data import ImageSource, StepBatches, open_images
from pretrain.data.folder import FolderSource, TrainingImages
from tests.pretrain.data.helpers import picture, telling_transform, telling_views

VIEWS = RandomViews(byol_views(32), seed=5)


@pytest.fixture
def damaged(tmp_path: Path) -> FolderSource:
    """Four images of which the second is cut short and the third is empty."""
    (tmp_path / "a").mkdir()
    for number in range(4):
        (tmp_path / "a" / f"{number}.png").write_bytes(picture(number))
    (tmp_path / "a" / "1.png").write_bytes(picture(1)[:40])
    (tmp_path / "a" / "2.png").write_bytes(b"")
    return FolderSource(tmp_path)


@pytest.fixture
def few(demo_root: Path) -> ImageSource:
    """Ten images, of several classes."""
    whole = open_images("demo")
    return whole.subset(range(0, len(whole), len(whole) // 10)[:10])


def test_images_are_torchvisions(demo_root: Path) -> None:
    found = ImageFolder(demo_root / "imagenet" / "train")
    source = open_images("demo")
    assert isinstance(source, FolderSource)
    assert (source.classes, source.labels) == (found.classes, found.targets)
    assert source.paths == [path for path, _ in found.imgs]
    assert source.names == [Path(path).stem for path, _ in found.imgs]
    assert len(source) == len(found)


def test_a_subset_keeps_its_order_and_the_classes(few: ImageSource) -> None:
    part = few.subset([7, 2])
    assert (part.names, part.labels) == (
        [few.names[7], few.names[2]],
        [few.labels[7], few.labels[2]],
    )
    assert part.classes == few.classes and len(part) == 2 and len(few) == 10
    (batch,) = part.evaluation_batches(centre_crop(32), 4, 0)
    assert batch.labels.tolist() == part.labels


def test_a_folder_without_images_is_an_empty_source(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    source = FolderSource(tmp_path)
    assert (len(source), list(source.names), source.classes) == (0, [], ["a"])
    assert list(source.evaluation_batches(telling_transform, 4, 0)) == []


def test_workers_change_nothing(demo_root: Path) -> None:
    source = open_images("demo")
    order = StepBatches(len(source), 16, 1, 5, start=3)
    expected, batch = (next(iter(source.training_batches(VIEWS, order, w))) for w in (0, 2))
    assert torch.equal(batch.labels, expected.labels)
    assert len(batch.views) == 2 and batch.views[0].shape == (16, 3, 32, 32)
    assert all(torch.equal(a, b) for a, b in zip(batch.views, expected.views, strict=True))


@pytest.mark.parametrize("workers", [0, 1])
def test_loading_leaves_the_global_stream_alone(few: ImageSource, workers: int) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    list(few.training_batches(VIEWS, StepBatches(10, 5, 1, 0), workers))
    list(few.evaluation_batches(centre_crop(32), 5, workers))
    assert torch.equal(torch.rand(3), expected)


def test_an_unreadable_image_is_replaced_and_named(damaged: FolderSource) -> None:
    images = TrainingImages(damaged, VIEWS)
    views, _, skipped = images[(0, 1)]
    assert skipped == damaged.paths[1:3]
    assert torch.equal(views[0], images[(0, 3)][0][0])
    assert images[(0, 0)][2] == []


def test_a_batch_names_all_that_it_skipped(damaged: FolderSource) -> None:
    (batch,) = damaged.training_batches(telling_views, StepBatches(4, 4, 1, 0), 0)
    assert sorted(batch.views[0][:, 0].tolist()) == [0, 3, 3, 3]
    assert sorted(set(batch.skipped)) == damaged.paths[1:3]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_folder_of_unreadable_images_is_an_error(tmp_path: Path, workers: int) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.jpg").write_bytes(b"")
    batches = FolderSource(tmp_path).training_batches(VIEWS, StepBatches(1, 1, 1, 0), workers)
    with pytest.raises(UserError, match=r"^none of the 1 images.*can be read; are they image.*$"):
        list(batches)


@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
def test_an_evaluation_sees_every_readable_image_once(damaged: FolderSource, ranks: int) -> None:
    seen: list[int] = []
    skipped: list[str] = []
    for rank in range(ranks):
        for batch in damaged.evaluation_batches(telling_transform, 1, 0, rank, ranks):
            assert batch.labels.dtype == torch.int64
            assert len(batch.labels) == (len(batch.views[0]) if batch.views else 0)
            seen += [n for view in batch.views for n in view[:, 0].tolist()]
            skipped += batch.skipped
    assert (sorted(seen), sorted(skipped)) == ([0, 3], damaged.paths[1:3])


def test_images_of_any_mode_are_seen_in_colour(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for mode in ("L", "P", "RGBA", "CMYK", "1"):
        suffix = "jpg" if mode == "CMYK" else "png"
        Image.new(mode, (40, 40), 1).save(tmp_path / "a" / f"{mode}.{suffix}")
    (batch,) = FolderSource(tmp_path).evaluation_batches(centre_crop(32), 5, 0)
    assert batch.views[0].shape == (5, 3, 32, 32) and batch.skipped == []
