"""Order of images: the same for any number of processes, and after any interruption."""

from itertools import chain

import torch
from hypothesis import given
from hypothesis import strategies as st

from pretrain.data import StepBatches


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


def test_seeds_and_epochs_have_orders_of_their_own() -> None:
    first, second = list(StepBatches(50, 50, 2, seed=0))
    other = next(iter(StepBatches(50, 50, 1, seed=1)))
    orders = {tuple(index for _, index in batch) for batch in (first, second, other)}
    assert len(orders) == 3


def test_the_order_leaves_the_global_stream_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    list(StepBatches(50, 10, 2, seed=0))
    assert torch.equal(torch.rand(3), expected)
