"""Published protocols of linear and semi-supervised evaluation."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Protocol:
    """Hyper-parameters that were published together.

    Attributes:
        percent: share of the training images.
        batch_size: images per step over all processes.
        epochs: epochs of training.
        backbone_lr: learning rate of the backbone for that batch; 0 where it is frozen.
        head_lr: learning rate of the classifier for that batch.
        weight_decay: of every trained parameter.
        source: where it was published.
    """

    percent: int
    batch_size: int
    epochs: int
    backbone_lr: float
    head_lr: float
    weight_decay: float
    source: str


LINEAR = Protocol(100, 256, 50, 0.0, 0.4, 0.0, "LEWEL (CVPR 2022), linear evaluation")
SEMI = {
    1: Protocol(1, 256, 50, 1e-4, 1.0, 1e-4, "LEWEL (CVPR 2022), 1 % of the labels"),
    10: Protocol(10, 256, 50, 1e-2, 0.1, 1e-4, "LEWEL (CVPR 2022), 10 % of the labels"),
}
MOMENTUM = 0.9
"""Of SGD, in all of them."""


def milestones(epochs: int) -> tuple[int, int]:
    """The epochs at which the learning rate falls: 30 and 40 of 50, as published."""
    return round(0.6 * epochs), round(0.8 * epochs)


def decay(epoch: int, epochs: int) -> float:
    """What the learning rate of an epoch is multiplied by: 0.1 for each milestone passed."""
    return 0.1 ** sum(epoch >= milestone for milestone in milestones(epochs))
