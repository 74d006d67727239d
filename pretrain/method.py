"""The description of a pre-training method: its recipes, its options, and where its code is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Norm = Literal["eman", "syncbn", "shufflebn"]


@dataclass(frozen=True)
class Recipe:
    """Hyper-parameters of a method for a number of epochs.

    Attributes:
        norm: BatchNorm with an EMAN target, synchronised, or over shuffled images.
        epochs: epochs of pre-training.
        batch_size: images per step over all processes.
        lr: peak learning rate for that batch.
        weight_decay: weight decay.
        base_momentum: momentum of the target at the first step.
        warmup_epochs: epochs of linear warm-up.
        source: where it was published, or why we chose it.
        adapt_mlp_norms: let LARS adapt the weights of the MLPs' norms, and let them decay.
        unlike: the difference from the recipe of the method's published figures, if any.
    """

    norm: Norm
    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    base_momentum: float
    warmup_epochs: float
    source: str
    adapt_mlp_norms: bool = False
    unlike: str = ""


@dataclass(frozen=True)
class Method:
    """A pre-training method; nothing of its code is imported before it is trained.

    Attributes:
        name: the value of ``--method``.
        title: the name in results tables.
        recipes: hyper-parameters for some numbers of epochs, at least one for each norm.
        archs: the value of ``arch`` in checkpoints, for each norm that the method can have.
        defaults: the options that only some methods have, and their values for this one.
        model: ``module:class`` of the model, whose arguments are fields of the configuration.
        views: ``module:function`` that makes the transforms of both views for a side in pixels.
        optimizer: ``module:function`` that makes the optimizer of a model for a configuration.
        note: a remark for readers of its numbers.
    """

    name: str
    title: str
    recipes: tuple[Recipe, ...]
    archs: Mapping[str, str]
    defaults: Mapping[str, Any]
    model: str
    views: str
    optimizer: str
    note: str = ""

    def recipe(self, norm: str, epochs: int) -> Recipe:
        """The recipe of ``norm`` whose epochs are nearest to ``epochs``."""
        mine = (recipe for recipe in self.recipes if recipe.norm == norm)
        return min(mine, key=lambda recipe: abs(recipe.epochs - epochs))
