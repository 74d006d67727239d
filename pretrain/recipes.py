"""Hyper-parameters that belong together, and where they come from."""

from dataclasses import dataclass
from typing import Literal

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
        adapt_mlp_norms: whether the weights of the MLPs' norms are among those that LARS adapts
            and that decay; None without LARS.
        unlike: in what it is not the recipe of the method's published figures.
    """

    norm: Norm
    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    base_momentum: float
    warmup_epochs: float
    source: str
    adapt_mlp_norms: bool | None = None
    unlike: str = ""
