"""Part of a training split: a published list of files, or a seeded choice with equal classes."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from common.errors import UserError
from common.files import sha256
from pretrain.data.images import ImageSource

ALL = 100
"""Percent of the images that are all of them."""


class Subset(NamedTuple):
    """Some images of a source.

    Attributes:
        indices: of the images, ascending.
        how: how they were chosen, for the results table.
    """

    indices: list[int]
    how: str


def choose(
    source: ImageSource, percent: int, seed: int = 0, list_path: str | None = None
) -> Subset:
    """A share of a source's images.

    SimCLR's lists (``imagenet_subsets/1percent.txt`` and ``10percent.txt`` of its release) are the
    usual ones; without one, a subset of their size is drawn: of ImageNet 12,811 or 128,116 images.

    Args:
        source: the training split.
        percent: the share; 100 is every image.
        seed: of the choice, where there is no list.
        list_path: a file with the name of an image in each line, such as n01440764_10026.JPEG.

    Raises:
        UserError: if the list cannot be read, names unknown images, or is of another size.
    """
    if percent == ALL:
        return Subset(list(range(len(source))), "all")
    if list_path is None:
        wanted = len(source) * percent // 100  # rounded down, as SimCLR's lists are
        return Subset(balanced(source.labels, wanted, seed), f"seeded {percent}% seed {seed}")
    indices = listed(source, list_path)
    share = 100 * len(indices) / len(source)
    if not percent / 2 < share < percent * 2:
        raise UserError(
            f"--list {list_path} names {len(indices)} of {len(source)} images, which is "
            f"{share:.3g} % and not --percent {percent}; give the list of that size."
        )
    return Subset(indices, f"list {Path(list_path).name} sha256 {sha256(list_path)[:8]}")


def balanced(labels: Sequence[int], count: int, seed: int) -> list[int]:
    """Indices of ``count`` images, as equally many of each class as there are, ascending.

    Every class with an image has at least one, even if that makes more than ``count``. Which
    classes have one more than others where the division leaves a rest, and which images of a
    class are chosen, depends on the seed alone.

    Args:
        labels: class of each image.
        count: images wanted; all of them if there are fewer.
        seed: of the choice.
    """
    generator = torch.Generator().manual_seed(seed)
    members: dict[int, list[int]] = {}
    for index, label in enumerate(labels):
        members.setdefault(label, []).append(index)
    shuffled = [sorted(members)[i] for i in torch.randperm(len(members), generator=generator)]
    quotas = _share_out({c: len(members[c]) for c in shuffled}, max(count, len(members)))
    chosen: list[int] = []
    for label in sorted(members):
        order = torch.randperm(len(members[label]), generator=generator)[: quotas[label]]
        chosen += [members[label][i] for i in order]
    return sorted(chosen)


def _share_out(sizes: dict[int, int], count: int) -> dict[int, int]:
    """Equal parts of ``count``, none above its size; the first classes have what is left over."""
    quotas = dict.fromkeys(sizes, 0)
    left = min(count, sum(sizes.values()))
    while left:
        open_classes = [c for c in sizes if quotas[c] < sizes[c]]
        share = left // len(open_classes)
        for c in open_classes if share else open_classes[:left]:
            more = min(share or 1, sizes[c] - quotas[c])
            quotas[c] += more
            left -= more
    return quotas


def listed(source: ImageSource, path: str) -> list[int]:
    """Indices of the images that a file names, one a line, ascending.

    A name counts without its folder and ending, as the names of a source do.

    Raises:
        UserError: if the file cannot be read, is empty, names an image twice or one that the
            source does not have, or if the source has two images of that name.
    """
    try:
        lines = Path(path).expanduser().read_text().split()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--list {path} cannot be read as a text file; check the path.") from error
    wanted = [Path(line).stem for line in lines]
    if not wanted:
        raise UserError(f"--list {path} names no image; expected one file name a line.")
    index = {name: i for i, name in enumerate(source.names)}
    unknown = [name for name in wanted if name not in index]
    if unknown:
        raise UserError(
            f"--list {path}: {len(unknown)} of its {len(wanted)} names, such as {unknown[0]}, are "
            f"not images of {source.description}; is it the list of this data set?"
        )
    counts = Counter(source.names)
    double = [n for n, times in Counter(wanted).items() if times > 1 or counts[n] > 1]
    if double:
        raise UserError(
            f"--list {path}: {double[0]} is not the name of one image, but is there more than "
            f"once, in the list or in {source.description}."
        )
    return sorted(index[name] for name in wanted)
