"""Published LEWEL recipes, picked by norm and number of epochs."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """Hyper-parameters that were published together.

    Attributes:
        norm: ``eman`` or ``syncbn``.
        epochs: epochs of pre-training.
        batch_size: images per step over all processes.
        lr: peak learning rate for that batch.
        weight_decay: weight decay of the parameters that LARS adapts.
        base_momentum: momentum of the target at the first step.
        warmup_epochs: epochs of linear warm-up.
        source: where it was published.
    """

    norm: str
    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    base_momentum: float
    warmup_epochs: float
    source: str


RECIPES = (
    Recipe("eman", 100, 1024, 3.6, 1e-6, 0.98, 10, "LEWEL's published log of 100 epochs"),
    Recipe("eman", 200, 1024, 3.6, 1.5e-6, 0.98, 10, "LEWEL's release script"),
    Recipe("syncbn", 400, 4096, 7.2, 1e-6, 0.996, 10, "LEWEL's release script"),
)


def pick(norm: str, epochs: int) -> Recipe:
    """The recipe of ``norm`` whose epochs are nearest to ``epochs``."""
    return min((r for r in RECIPES if r.norm == norm), key=lambda r: abs(r.epochs - epochs))
