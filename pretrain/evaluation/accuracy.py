"""How many answers were right, and how far that may be from the truth."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

Z95 = 1.959963984540054
"""The normal distribution has 95 % of its mass within this many standard deviations."""


@dataclass(frozen=True)
class Accuracy:
    """A share of right answers.

    Attributes:
        correct: right answers.
        total: all answers.
    """

    correct: int
    total: int

    @property
    def percent(self) -> float:
        """The share in percent; NaN without an answer."""
        return 100 * self.correct / self.total if self.total else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Its 95 % Wilson interval in percent; see :func:`wilson`."""
        low, high = wilson(self.correct, self.total)
        return 100 * low, 100 * high


def wilson(correct: int, total: int, z: float = Z95) -> tuple[float, float]:
    """The score interval of a proportion (Wilson 1927, JASA 22:209), which stays within [0, 1].

    It tells of the images that happened to be drawn, not of seeds. Without an answer it is (0, 1).

    Args:
        correct: right answers.
        total: all answers, independent of each other.
        z: quantile of the normal distribution; the default gives 95 %.
    """
    if not total:
        return 0.0, 1.0
    share = correct / total
    scale = 1 + z * z / total
    centre = (share + z * z / (2 * total)) / scale
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total)) / scale
    # Rounding would leave 1e-18 where nothing, or everything, was right.
    return (max(centre - half, 0.0) if correct else 0.0), (
        min(centre + half, 1.0) if correct < total else 1.0
    )


def count_correct(logits: Tensor, labels: Tensor) -> Tensor:
    """Right first guesses, right among the first five, and all answers: int64 (3,).

    Args:
        logits: (n, classes); with fewer than five classes all of them are guessed.
        labels: (n,).
    """
    guesses = logits.topk(min(5, logits.shape[1]), 1).indices
    right = guesses == labels[:, None]
    return torch.stack([right[:, 0].sum(), right.sum(), torch.tensor(len(labels)).to(right.device)])
