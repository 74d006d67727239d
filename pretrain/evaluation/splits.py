"""The training and the validation images of an evaluation, checked against each other."""

import logging
from typing import TYPE_CHECKING, NamedTuple

from common.errors import UserError
from pretrain.data.images import ImageSource
from pretrain.data.locate import open_images, open_validation
from pretrain.evaluation.subsets import choose

if TYPE_CHECKING:
    from pretrain.evaluation.config import ClassifierConfig

log = logging.getLogger("pretrain.evaluation")


class Splits(NamedTuple):
    """The images of an evaluation.

    Attributes:
        training: what the classifier learns from: all of the training split, or a subset.
        validation: what it is measured on.
        subset: how the training images were chosen, for the results table.
    """

    training: ImageSource
    validation: ImageSource
    subset: str


def open_splits(config: "ClassifierConfig") -> Splits:
    """The images of a configuration; looks at every file's name.

    Raises:
        UserError: if images are missing, classes differ, a list does not fit, or there are fewer
            images than a batch has.
    """
    whole = open_images(config.data)
    validation = open_validation(config.data, config.val_data)
    if validation is None or not len(validation):
        raise UserError(f"no validation images beside {whole.description}; give --val-data FOLDER.")
    check_comparable(whole, validation)
    subset = choose(whole, config.percent, config.seed, config.list_path)
    if len(subset.indices) < config.batch_size:
        raise UserError(
            f"{len(subset.indices)} training images of {whole.description} ({subset.how}) are "
            f"fewer than --batch-size {config.batch_size}; choose a smaller batch."
        )
    training = whole.subset(subset.indices)
    warn_of_empty_classes(training, validation)
    return Splits(training, validation, subset.how)


def check_comparable(training: ImageSource, validation: ImageSource) -> None:
    """Raise if an evaluation would ask for what was learnt, or for other classes.

    Raises:
        UserError: naming the folder or a class.
    """
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
    """Whether the classes have no names, as in shards, so that there is nothing to compare."""
    return all(name == str(label) for label, name in enumerate(source.classes))
