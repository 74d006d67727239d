"""A pre-training method: everything that the loop must know of it, in one value."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pretrain.augment import ViewTransform
from pretrain.optimizer import LARS, parameter_groups
from pretrain.recipes import Recipe
from pretrain.selfsupervised import SelfSupervised

if TYPE_CHECKING:
    from pretrain.config import ResolvedConfig


@dataclass(frozen=True)
class Method:
    """A pre-training method.

    Attributes:
        name: what ``--method`` calls it.
        title: what results tables call it.
        recipes: its hyper-parameters for some numbers of epochs, at least one for each norm.
        archs: what its checkpoints say in ``arch``, for each norm that it can have.
        defaults: the options that only some methods have, and their values for this one.
        model: the class of its model, whose arguments are fields of the configuration.
        views: the transforms of the two views, for a side in pixels.
        optimizer: of a model, for a configuration.
        note: what a reader of its numbers should know.
    """

    name: str
    title: str
    recipes: tuple[Recipe, ...]
    archs: Mapping[str, str]
    defaults: Mapping[str, Any]
    model: Callable[..., SelfSupervised]
    views: Callable[[int], tuple[ViewTransform, ViewTransform]]
    optimizer: Callable[[nn.Module, "ResolvedConfig"], torch.optim.Optimizer]
    note: str = ""

    def build(self, config: "ResolvedConfig") -> SelfSupervised:
        """The model of a resolved configuration, on the CPU."""
        names = inspect.signature(self.model).parameters
        return self.model(**{name: getattr(config, name) for name in names})

    def recipe(self, norm: str, epochs: int) -> Recipe:
        """The recipe of ``norm`` whose epochs are nearest to ``epochs``."""
        mine = (recipe for recipe in self.recipes if recipe.norm == norm)
        return min(mine, key=lambda recipe: abs(recipe.epochs - epochs))


def lars(model: nn.Module, config: "ResolvedConfig") -> LARS:
    """LARS, which leaves biases and norms alone, or norms but for those of MLPs."""
    groups = parameter_groups(model, config.weight_decay, config.adapt_mlp_norms)
    return LARS(groups, lr=config.lr)


def sgd(model: nn.Module, config: "ResolvedConfig") -> torch.optim.SGD:
    """SGD with momentum 0.9 and weight decay on every trained parameter, as MoCo has it."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.SGD(trained, config.lr, momentum=0.9, weight_decay=config.weight_decay)
