"""Order of images and what happens to those that cannot be read."""

from itertools import chain
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from common.errors import UserError
from pretrain.data import StepBatches, TwoViewDataset, locate


@given(
    images=st.integers(8, 60),
    share=st.integers(1, 4),
    world=st.integers(1, 4),
    epochs=st.integers(1, 4),
    data=st.data(),
)
def test_batches_depend_on_neither_processes_nor_resume(
    images: int, share: int, world: int, epochs: int, data: st.DataObject
) -> None:
    batch = min(share * world, images // world * world)
    if batch == 0:
        return
    whole = list(StepBatches(images, batch, epochs, seed=3))
    start = data.draw(st.integers(0, len(whole)))
    ranks = [StepBatches(images, batch, epochs, 3, r, world, start) for r in range(world)]
    assert all(len(rank) == len(whole) - start for rank in ranks)
    together = [list(chain(*parts)) for parts in zip(*ranks, strict=True)]
    assert together == whole[start:]
    steps = images // batch
    for epoch in range(epochs):
        keys = [key for b in whole[epoch * steps : (epoch + 1) * steps] for key in b]
        assert {e for e, _ in keys} == {epoch}
        assert len({index for _, index in keys}) == len(keys) == steps * batch


def test_workers_change_nothing(demo_root: Path) -> None:
    dataset = TwoViewDataset(demo_root / "imagenet" / "train", 32, seed=5)
    for workers in (0, 2):
        loader = DataLoader(
            dataset, batch_sampler=StepBatches(len(dataset), 16, 1, 5, start=3), num_workers=workers
        )
        batch = next(iter(loader))
        if workers == 0:
            expected = batch
    assert torch.equal(batch[0], expected[0]) and torch.equal(batch[1], expected[1])


def test_an_unreadable_image_is_replaced_and_named(tmp_path: Path, demo_root: Path) -> None:
    source = sorted((demo_root / "imagenet" / "train").glob("*/*"))[:4]
    (tmp_path / "a").mkdir()
    for number, path in enumerate(source):
        (tmp_path / "a" / f"{number}.jpg").write_bytes(path.read_bytes())
    (tmp_path / "a" / "1.jpg").write_bytes(source[1].read_bytes()[:300])
    (tmp_path / "a" / "2.jpg").write_bytes(b"")
    dataset = TwoViewDataset(tmp_path, 32, seed=0)
    view1, _, skipped = dataset[(0, 1)]
    assert skipped.splitlines() == [str(tmp_path / "a" / "1.jpg"), str(tmp_path / "a" / "2.jpg")]
    assert torch.equal(view1, dataset[(0, 3)][0])
    assert dataset[(0, 0)][2] == ""


def test_a_folder_of_unreadable_images_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.jpg").write_bytes(b"")
    with pytest.raises(UserError, match="none of the 1 images"):
        TwoViewDataset(tmp_path, 32, seed=0)[(0, 0)]


def test_locate(tmp_path: Path, demo_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IMAGENET_DIR", raising=False)
    train = demo_root / "imagenet" / "train"
    assert locate(str(demo_root / "imagenet")) == locate(str(train)) == locate("demo") == train
    with pytest.raises(UserError, match="IMAGENET_DIR"):
        locate(None)
    with pytest.raises(UserError, match="no such folder"):
        locate(str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="no image"):
        locate(str(tmp_path))
    monkeypatch.setenv("IMAGENET_DIR", str(demo_root / "imagenet"))
    assert locate(None) == train
