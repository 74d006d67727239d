"""Signs of an early dip and of a collapse, in the rows of a pre-training."""

import math
from collections.abc import Mapping

# Of 1 / sqrt(dim), the spread of embeddings that fill the sphere (SimSiam, section 4.1): ours.
COLLAPSED = 0.2
EARLY = 0.1  # share of the steps in which a dip is no sign of harm, and after which it is


class Signs:
    """Warnings from a training's rows, each sentence once.

    In the first epoch of LEWEL_B's published log the loss falls to 0.097 at iteration 150, and
    recovers (release file ``pretrain_logs/LEWEL_B-100ep.txt``).

    Args:
        dim: dimension of the embeddings.
        total_steps: steps of the whole training.
    """

    def __init__(self, dim: int, total_steps: int) -> None:
        self.healthy, self.total_steps = 1 / math.sqrt(dim), total_steps
        self._before: Mapping[str, float] | None = None  # the kNN before the first step
        self._since: int | None = None  # the step at which the embeddings became alike
        self._told: set[str] = set()

    def read(self, row: Mapping[str, float]) -> str:
        """The sentence that a row of metrics.jsonl gives reason to; "" for none."""
        for name, sentence in (("dip", self._dip(row)), ("collapse", self._collapse(row))):
            if sentence and name not in self._told:
                self._told.add(name)
                return sentence
        return ""

    def _dip(self, row: Mapping[str, float]) -> str:
        if "knn20_top1" in row and row["step"] < 0:
            self._before = row
        early = row["step"] < EARLY * self.total_steps
        if early and row.get("embedding_std", math.inf) < COLLAPSED * self.healthy:
            return (
                f"step {row['step']}: the embeddings of all images are nearly alike "
                f"(embedding_std {row['embedding_std']:.2g}, {self.healthy:.2g} in good health); "
                "an early dip is known, LEWEL_B's published run has one in its first epoch"
            )
        if self._before and row.get("knn20_high", math.inf) < self._before["knn20_low"]:
            return (
                f"kNN accuracy fell from {self._before['knn20_top1']:.1f} before the first step to "
                f"{row['knn20_top1']:.1f}; an early dip is known, LEWEL_B's published run has one "
                "in its first epoch, but a run that ends below its start has learned nothing"
            )
        return ""

    def _collapse(self, row: Mapping[str, float]) -> str:
        if "embedding_std" not in row or row["step"] < EARLY * self.total_steps:
            return ""
        if row["embedding_std"] >= COLLAPSED * self.healthy:
            self._since = None
            return ""
        if self._since is None:
            self._since = int(row["step"])
        if row["step"] - self._since < EARLY * self.total_steps:
            return ""
        return (
            f"embedding_std is under {COLLAPSED * self.healthy:.2g} since step {self._since}, and "
            f"{self.healthy:.2g} in good health: the run has collapsed; start again with a lower "
            "--lr or a higher --base-momentum"
        )
