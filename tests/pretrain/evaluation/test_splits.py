"""Subsets of a training split: sizes, balance, determinism, and lists of files."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.errors import UserError
from common.files import sha256
from pretrain.evaluation.splits import balanced, choose
from tests.pretrain.evaluation.sources import TensorSource


@given(
    labels=st.lists(st.integers(0, 6), min_size=1, max_size=80),
    count=st.integers(0, 100),
    seed=st.integers(0, 3),
)
def test_a_subset_is_as_balanced_as_can_be(labels: list[int], count: int, seed: int) -> None:
    chosen = balanced(labels, count, seed)
    sizes, of_class = Counter(labels), Counter(labels[i] for i in chosen)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(max(count, len(sizes)), len(labels))
    assert set(of_class) == set(sizes)
    # A class has fewer than another only if it has no more, or by one.
    most = max(of_class.values())
    assert all(of_class[c] == sizes[c] or of_class[c] >= most - 1 for c in sizes)
    assert chosen == balanced(labels, count, seed)


def test_another_seed_is_another_choice_and_every_image_has_a_chance() -> None:
    labels = [0] * 10 + [1] * 10
    choices = [balanced(labels, 5, seed) for seed in range(60)]
    assert len({tuple(choice) for choice in choices}) > 30
    assert {i for choice in choices for i in choice} == set(range(20))
    assert {sum(i < 10 for i in choice) for choice in choices} == {2, 3}  # the rest, to either


@pytest.mark.parametrize(("percent", "images"), [(1, 12_811), (10, 128_116)])
def test_imagenets_shares_have_the_size_of_simclrs_lists(percent: int, images: int) -> None:
    labels = torch.arange(1_281_167) % 1000
    source = TensorSource(torch.empty(len(labels), 0), labels.tolist(), "imagenet")
    indices, how = choose(source, percent, seed=7)
    assert len(indices) == images and how == f"seeded {percent}% seed 7"
    of_class = Counter(labels[indices].tolist())
    assert len(of_class) == 1000 and max(of_class.values()) - min(of_class.values()) == 1


@pytest.fixture
def source() -> TensorSource:
    found = TensorSource(torch.empty(200, 0), [i % 4 for i in range(200)], "here")
    found.names = [f"n01440764_{i}" for i in range(200)]
    return found


def test_all_images(source: TensorSource) -> None:
    assert choose(source, 100) == (list(range(200)), "all")


def test_a_list_names_its_images(source: TensorSource, tmp_path: Path) -> None:
    path = tmp_path / "1percent.txt"
    path.write_text("n01440764_150.JPEG\n\nn01440764_3.JPEG\n")
    how = f"list 1percent.txt sha256 {sha256(path)[:8]}"
    assert choose(source, 1, list_path=str(path)) == ([3, 150], how)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"\xff\xfe\x00\x81", "cannot be read as a text file"),
        (b"n01440764_3.JPEG n01440764_double.JPEG", "n01440764_double is not the name of one"),
        (b"", "names 0 of 200 images, which is 0 % and not --percent 1"),
        (b"n01440764_3.JPEG\nn1_1.JPEG\nn1_2.JPEG", r"2 of its 3 names, such as n1_1, are not"),
        (b"n01440764_3.JPEG\nn01440764_3.JPEG", "n01440764_3 is not the name of one image"),
        (
            b"\n".join(b"n01440764_%d.JPEG" % i for i in range(20)),
            r"names 20 of 200 images, which is 10 % and not --percent 1",
        ),
    ],
)
def test_a_list_that_does_not_fit(
    source: TensorSource, tmp_path: Path, text: bytes, message: str
) -> None:
    (tmp_path / "list.txt").write_bytes(text)
    source.names = [*source.names[:-2], *["n01440764_double"] * 2]  # in two classes
    with pytest.raises(UserError, match=message):
        choose(source, 1, list_path=str(tmp_path / "list.txt"))
