"""The description of a pre-training method: its recipes, its options, and where its code is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Norm = Literal["eman", "syncbn", "shufflebn"]


@dataclass(frozen=True)
class Recipe:
    """Hyper-parameters of a method for a number of epochs."""

    norm: Norm  # BatchNorm with an EMAN target, synchronised, or over shuffled images
    epochs: int
    batch_size: int  # over all processes
    lr: float  # peak, for that batch
    weight_decay: float
    base_momentum: float  # of the target at the first step
    warmup_epochs: float
    source: str  # where it was published, or why we chose it
    adapt_mlp_norms: bool = False  # LARS adapts the weights of the MLPs' norms, and they decay
    unlike: str = ""  # the difference from the recipe of the method's published figures


@dataclass(frozen=True)
class Method:
    """A pre-training method; nothing of its code is imported before it is trained."""

    name: str  # of ``--method``
    title: str  # in results tables
    recipes: tuple[Recipe, ...]  # for some numbers of epochs, at least one for each norm
    archs: Mapping[str, str]  # ``arch`` in checkpoints, for each norm that it can have
    defaults: Mapping[str, Any]  # of the options that only some methods have
    model: str  # ``module:class``, whose arguments are fields of the configuration
    views: str  # ``module:function`` of side and blur in pixels: the transforms of both views
    optimizer: str  # ``module:function`` of a model and a configuration
    note: str = ""  # for readers of its numbers

    def recipe(self, norm: str, epochs: int) -> Recipe:
        """The recipe of ``norm`` whose epochs are nearest to ``epochs``."""
        mine = (recipe for recipe in self.recipes if recipe.norm == norm)
        return min(mine, key=lambda recipe: abs(recipe.epochs - epochs))
