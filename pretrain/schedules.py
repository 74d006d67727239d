"""Learning rate and target momentum as functions of the step."""

import math


def learning_rate(
    step: int, steps_per_epoch: int, epochs: int, warmup_epochs: float, lr: float
) -> float:
    """Linear warm-up per step, then a cosine per epoch from the end of warm-up to zero.

    Args:
        step: optimizer step, counted from 0.
        steps_per_epoch: steps of an epoch.
        epochs: epochs of the whole training.
        warmup_epochs: epochs of warm-up; may be a fraction.
        lr: the peak, reached at the last step of the warm-up.
    """
    warmup_steps = round(warmup_epochs * steps_per_epoch)
    if step < warmup_steps:
        return lr * (step + 1) / warmup_steps
    epoch = max(step // steps_per_epoch - warmup_epochs, 0)
    return lr * 0.5 * (1 + math.cos(math.pi * epoch / (epochs - warmup_epochs)))


def target_momentum(step: int, total_steps: int, base: float) -> float:
    """BYOL's cosine from ``base`` to 1 (arXiv 2006.07733, section 3.2)."""
    return 1 - (1 - base) * (math.cos(math.pi * step / total_steps) + 1) / 2
