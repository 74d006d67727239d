"""The training and the validation images of an evaluation, and subsets of the training images."""

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from common.errors import UserError
from common.files import sha256
from pretrain.data.images import ImageSource
from pretrain.data.locate import open_images, open_validation
from pretrain.evaluation.config import ClassifierConfig

log = logging.getLogger("pretrain.evaluation")


class Splits(NamedTuple):
    """The images of an evaluation; ``subset`` tells in words which of the training split."""

    training: ImageSource
    validation: ImageSource
    subset: str


def open_splits(config: ClassifierConfig) -> Splits:
    """The images of a configuration; looks at every file's name."""
    whole = open_images(config.data)
    validation = open_validation(config.data, config.val_data)
    if validation is None or not len(validation):
        raise UserError(f"no validation images beside {whole.description}; give --val-data FOLDER.")
    check_comparable(whole, validation)
    indices, how = choose(whole, config.percent, config.seed, config.list_path)
    if len(indices) < config.batch_size:
        raise UserError(
            f"{len(indices)} training images of {whole.description} ({how}) are fewer than "
            f"--batch-size {config.batch_size}; choose a smaller batch."
        )
    training = whole.subset(indices)
    warn_of_empty_classes(training, validation)
    return Splits(training, validation, how)


def check_comparable(training: ImageSource, validation: ImageSource) -> None:
    """Raise a UserError if training and validation images are the same, or of other classes."""
    same_place = training.description == validation.description
    if same_place and not set(training.names).isdisjoint(validation.names):
        raise UserError(
            f"the training and the validation images are both {training.description}; give "
            "--val-data the validation split."
        )
    named = not (_is_numbered(training) or _is_numbered(validation))
    for label in sorted(set(validation.labels)):
        expected = training.classes[label] if label < len(training.classes) else "not there"
        found = validation.classes[label]
        if expected != found and (named or expected == "not there"):
            raise UserError(
                f"class {label} is {found} in {validation.description}, but {expected} in "
                f"{training.description}; an evaluation needs the same classes in both."
            )


def warn_of_empty_classes(training: ImageSource, validation: ImageSource) -> None:
    """Name the classes of the training split that one of the two has no images of."""
    for source, what in (
        (training, "no training images, and cannot be learnt"),
        (validation, "no validation images, and do not count in the accuracy"),
    ):
        there = set(source.labels)
        empty = [name for label, name in enumerate(training.classes) if label not in there]
        if empty:
            named = ", ".join(empty[:5]) + (", ..." if len(empty) > 5 else "")
            counts = f"{len(empty)} of {len(training.classes)} classes"
            log.warning("%s have %s: %s", counts, what, named)


def _is_numbered(source: ImageSource) -> bool:
    """True if the classes have no names, as in shards, so that there is nothing to compare."""
    return all(name == str(label) for label, name in enumerate(source.classes))


def choose(
    source: ImageSource, percent: int, seed: int = 0, list_path: str | None = None
) -> tuple[list[int], str]:
    """A share of a source's images: a published list of files, or a seeded choice.

    SimCLR's lists (``imagenet_subsets/1percent.txt`` and ``10percent.txt`` of its release), with
    the name of an image in each line, are the usual ones; without one, a subset of their size is
    drawn: of ImageNet 12,811 or 128,116 images. Returns their indices, ascending, and the choice
    in words for the results table.
    """
    if percent == 100:
        return list(range(len(source))), "all"
    if list_path is None:
        wanted = len(source) * percent // 100  # rounded down, as SimCLR's lists are
        return balanced(source.labels, wanted, seed), f"seeded {percent}% seed {seed}"
    indices = listed(source, list_path)
    share = 100 * len(indices) / len(source)
    if not percent / 2 < share < percent * 2:
        raise UserError(
            f"--list {list_path} names {len(indices)} of {len(source)} images, which is "
            f"{share:.3g} % and not --percent {percent}; give the list of that size."
        )
    return indices, f"list {Path(list_path).name} sha256 {sha256(list_path)[:8]}"


def balanced(labels: Sequence[int], count: int, seed: int) -> list[int]:
    """Indices of ``count`` images, as equally many of each class as there are, ascending.

    Every class with an image has at least one, even if that makes more than ``count``. Which
    classes have one more than others where the division leaves a rest, and which images of a
    class are chosen, depends on the seed alone.
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
        with_more = [c for c in sizes if quotas[c] < sizes[c]][:left]
        for c in with_more:
            quotas[c] += 1
        left -= len(with_more)
    return quotas


def listed(source: ImageSource, path: str) -> list[int]:
    """Indices of the images that a file names, one a line, ascending.

    A name counts without its folder and ending, as the names of a source do.
    """
    try:
        wanted = [Path(line).stem for line in Path(path).read_text().split()]
    except UnicodeDecodeError as error:
        raise UserError(f"--list {path} cannot be read as a text file; check the path.") from error
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
