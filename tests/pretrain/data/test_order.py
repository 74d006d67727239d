"""Order of images: the same for any number of processes, and after any interruption."""

from itertools import chain, pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pretrain.data.order import StepBatches


@given(
    images=st.integers(8, 60),
    share=st.integers(1, 4),
    world=st.integers(1, 4),
    epochs=st.integers(1, 4),
    block=st.integers(1, 9),
    data=st.data(),
)
def test_batches_depend_on_neither_processes_nor_resume(
    images: int, share: int, world: int, epochs: int, block: int, data: st.DataObject
) -> None:
    batch = min(share * world, images // world * world)
    if batch == 0:
        return
    whole = list(StepBatches(images, batch, epochs, seed=3, block=block))
    start = data.draw(st.integers(0, len(whole)))
    ranks = [StepBatches(images, batch, epochs, 3, r, world, start, block) for r in range(world)]
    assert all(len(rank) == len(whole) - start for rank in ranks)
    together = [list(chain(*parts)) for parts in zip(*ranks, strict=True)]
    assert together == whole[start:]
    steps = images // batch
    for epoch in range(epochs):
        keys = [key for b in whole[epoch * steps : (epoch + 1) * steps] for key in b]
        assert {e for e, _ in keys} == {epoch}
        assert len({index for _, index in keys}) == len(keys) == steps * batch


def test_seeds_and_epochs_have_orders_of_their_own() -> None:
    first, second = StepBatches(50, 50, 2, seed=0)
    (other,) = StepBatches(50, 50, 1, seed=1)
    orders = {tuple(index for _, index in batch) for batch in (first, second, other)}
    assert len(orders) == 3


@pytest.mark.parametrize("epoch", [0, 1, 7])
def test_images_of_a_folder_are_in_torchs_random_order(epoch: int) -> None:
    """The order of every run so far: a finished one repeats, an unfinished one goes on."""
    generator = torch.Generator().manual_seed(5 * 1_000_003 + epoch)
    expected = torch.randperm(50, generator=generator).tolist()
    (batch,) = StepBatches(50, 50, epoch + 1, seed=5, start=epoch)
    assert batch == [(epoch, index) for index in expected]


def test_blocks_stay_together_and_begin_elsewhere_in_each_epoch() -> None:
    """100 images in 13 blocks: after all others comes its neighbour, or that of the last image."""
    begins = set()
    for batch in StepBatches(100, 100, 6, seed=0, block=8):
        indices = [index for _, index in batch]
        jumps = [b for a, b in pairwise(indices) if b != (a + 1) % 100]
        assert 6 <= len(jumps) <= 12  # blocks may be neighbours by chance
        begins.add(min(jumps))
    assert len(begins) > 2
