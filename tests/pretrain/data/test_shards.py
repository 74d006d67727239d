"""The order in which shards are read: every image once, and the same order again."""

import logging
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import IterableDataset

from pretrain.augment import RandomViews, byol_views, centre_crop
from pretrain.data import Batch, StepBatches
from pretrain.data import shard_streams as streams
from pretrain.data.loading import Sample, collate
from pretrain.data.shards import ShardSource
from tests.pretrain.data.helpers import (
    same,
    sample,
    telling_transform,
    telling_views,
    told,
    write_shards,
    write_tar,
)

SIZES = [7, 1, 12, 5, 9]  # images of each shard
IMAGES = sum(SIZES)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> ShardSource:
    """Five shards; the image at an index is the picture of that number."""
    return ShardSource(write_shards(tmp_path_factory.mktemp("shards"), SIZES))


def loaded(stream: IterableDataset[Sample], batch_size: int, workers: int) -> Iterator[Batch]:
    """What a DataLoader makes of a stream, without its processes: a batch of each in turn."""

    def of_worker(number: int) -> Iterator[Batch]:
        with mock.patch.object(streams, "_worker", lambda: (number, workers)):
            samples = list(stream)
        while samples:
            yield collate(samples[:batch_size])
            samples = samples[batch_size:]

    left = [of_worker(number) for number in range(workers)]
    while left:
        for one in list(left):
            batch = next(one, None)
            if batch is None:
                left.remove(one)
            else:
                yield batch


@settings(deadline=None, max_examples=60)
@given(
    share=st.integers(1, 6),
    world=st.integers(1, 3),
    workers=st.integers(1, 9),
    epochs=st.integers(1, 3),
    chosen=st.none() | st.sets(st.integers(0, IMAGES - 1), min_size=1).map(sorted),
    data=st.data(),
)
def test_an_epoch_has_every_image_once_on_any_ranks_and_workers(
    source: ShardSource,
    share: int,
    world: int,
    workers: int,
    epochs: int,
    chosen: list[int] | None,
    data: st.DataObject,
) -> None:
    part = source if chosen is None else source.subset(chosen)
    numbers = chosen or list(range(IMAGES))
    batch, steps = share * world, len(part) // (share * world)
    start = data.draw(st.integers(0, epochs)) * steps
    each = [StepBatches(len(part), batch, epochs, 3, rank, world, start) for rank in range(world)]
    ranks = [
        list(loaded(streams.TrainingStream(part, telling_views, order), share, workers))
        for order in each
    ]
    assert {len(batches) for batches in ranks} == {epochs * steps - start}
    for step in range(start, epochs * steps):
        assert {len(batches[step - start].labels) for batches in ranks} == {share}
    for epoch in range(start // steps if steps else 0, epochs if steps else 0):
        first = epoch * steps - start
        seen = list(chain(*chain(*(told(b[first : first + steps]) for b in ranks))))
        assert len({index for _, _, index in seen}) == len(seen) == steps * batch
        assert all(e == epoch and numbers[index] == number for number, e, index in seen)
    labels = [b.labels.tolist() for b in chain(*ranks)]
    assert labels == [[n % 5 for n, _, _ in b] for b in told(list(chain(*ranks)))]


@settings(deadline=None, max_examples=60)
@given(share=st.integers(1, 6), workers=st.integers(1, 5), at=st.floats(0, 1))
def test_a_resume_at_any_step_goes_on_with_the_same_batches(
    source: ShardSource, share: int, workers: int, at: float
) -> None:
    order = StepBatches(IMAGES, share, 4, 1)
    start = round(at * order.total_steps)
    late = StepBatches(IMAGES, share, 4, 1, start=start)
    whole = list(loaded(streams.TrainingStream(source, telling_views, order), share, workers))
    rest = list(loaded(streams.TrainingStream(source, telling_views, late), share, workers))
    assert told(whole)[start:] == told(rest)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more than there are cores
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_real_workers_are_as_modelled_and_resume(source: ShardSource, workers: int) -> None:
    """5 steps an epoch on 3 workers: another worker is due at the start of each."""
    order = StepBatches(IMAGES, 6, 4, 1)
    batches = list(source.training_batches(telling_views, order, workers))
    stream = streams.TrainingStream(source, telling_views, order)
    assert same(batches, list(loaded(stream, 6, max(workers, 1))))
    for start in (10, 12):
        late = StepBatches(IMAGES, 6, 4, 1, start=start)
        assert same(batches[start:], list(source.training_batches(telling_views, late, workers)))


def test_epochs_and_seeds_have_orders_of_their_own(source: ShardSource) -> None:
    orders = [StepBatches(IMAGES, IMAGES, 2, seed) for seed in (0, 1)]
    seen = [told(list(source.training_batches(telling_views, order, 0))) for order in orders]
    numbers = {tuple(number for number, _, _ in batch) for run in seen for batch in run}
    assert len(numbers) == 4
    assert all(list(order) != sorted(order) for order in numbers)


def test_one_shard_leaves_out_others_every_time(tmp_path: Path) -> None:
    source = ShardSource(write_shards(tmp_path, [10]))
    batches = list(source.training_batches(telling_views, StepBatches(10, 9, 8, 0), 0))
    missing = {sum(range(10)) - sum(number for number, _, _ in batch) for batch in told(batches)}
    assert len(missing) > 3


def test_an_order_of_other_images_is_refused(source: ShardSource) -> None:
    with pytest.raises(ValueError, match="33 images for 34"):
        source.training_batches(telling_views, StepBatches(IMAGES - 1, 6, 2, 0), 0)


@settings(deadline=None, max_examples=40)
@given(
    size=st.integers(1, 5),
    workers=st.integers(1, 9),
    batch=st.integers(1, 50),
    chosen=st.none() | st.sets(st.integers(0, IMAGES - 1)).map(sorted),
)
def test_an_evaluation_sees_every_image_once(
    source: ShardSource, size: int, workers: int, batch: int, chosen: list[int] | None
) -> None:
    part = source if chosen is None else source.subset(chosen)
    ranks = [streams.EvaluationStream(part, telling_transform, r, size) for r in range(size)]
    counts = Counter[int]()
    for stream in ranks:
        share = 0
        for each in loaded(stream, batch, workers):
            numbers = each.views[0][:, 0].tolist()
            assert each.labels.tolist() == [n % 5 for n in numbers]
            counts.update(numbers)
            share += len(numbers)
        assert share in (len(part) // size, -(-len(part) // size))
    assert counts == Counter(range(IMAGES) if chosen is None else chosen)


@pytest.mark.parametrize("workers", [0, 2])
def test_real_workers_evaluate_in_order(source: ShardSource, workers: int) -> None:
    found = [list(source.evaluation_batches(telling_transform, 4, workers, r, 2)) for r in (0, 1)]
    numbers = [n for batch in chain(*found) for n in batch.views[0][:, 0].tolist()]
    assert sorted(numbers) == list(range(IMAGES))
    assert workers or numbers == sorted(numbers)


@pytest.mark.parametrize("workers", [0, 1])
def test_loading_leaves_the_global_stream_alone(source: ShardSource, workers: int) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    views = RandomViews(byol_views(16), 0)
    list(source.training_batches(views, StepBatches(IMAGES, 8, 1, 0), workers))
    list(source.evaluation_batches(centre_crop(16), 8, workers))
    assert torch.equal(torch.rand(3), expected)


def test_shards_written_class_by_class_are_warned_of(
    tmp_path: Path, source: ShardSource, caplog: pytest.LogCaptureFixture
) -> None:
    order = StepBatches(30, 5, 1, 0)
    source.subset(range(30)).training_batches(telling_views, order, 0)
    assert not caplog.records
    by_class = [sample(n) | {"cls": n // 10} for n in range(30)]
    with caplog.at_level(logging.WARNING):
        by_class_source = ShardSource([write_tar(tmp_path / "s.tar", by_class)])
        by_class_source.training_batches(telling_views, order, 0)
    assert "class by class" in caplog.text and "s.tar" in caplog.text
