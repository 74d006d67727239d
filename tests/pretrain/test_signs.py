"""Signs of an early dip and of a collapse: when a sentence comes, and that it comes once."""

from typing import Any

import pytest

from pretrain.signs import Signs

HEALTHY, ALIKE = 1 / 16, 0.01 / 16  # of 256 dimensions


def said(rows: list[dict[str, Any]]) -> list[tuple[int, str]]:
    """The steps at which a sentence comes, and its first words, in a run of 1,000 steps."""
    signs = Signs(256, 1000)
    sentences = [(row["step"], signs.read(row)) for row in rows]
    return [(step, " ".join(sentence.split()[:4])) for step, sentence in sentences if sentence]


def stds(*values: float) -> list[dict[str, Any]]:
    """Rows of every fifth step, each value for 50 of them."""
    return [
        {"step": 5 * i, "embedding_std": value}
        for i, value in enumerate(value for value in values for _ in range(10))
    ]


def knn(step: int, top1: float) -> dict[str, Any]:
    return {"step": step, "knn20_top1": top1, "knn20_low": top1 - 4, "knn20_high": top1 + 4}


def test_a_healthy_run_has_none() -> None:
    assert said(stds(*[HEALTHY] * 20)) == []
    assert said([knn(-1, 30), knn(99, 26), knn(199, 40)]) == []  # within what images allow


def test_a_dip_that_recovers_is_said_once_and_is_no_collapse() -> None:
    rows = stds(HEALTHY, ALIKE, *[HEALTHY] * 18)
    assert said(rows) == [(50, "step 50: the embeddings")]


def test_a_spread_that_stays_small_is_a_collapse() -> None:
    rows = stds(*[HEALTHY] * 6, *[ALIKE] * 14)
    assert said(rows) == [(400, "embedding_std is under 0.013")]
    assert said(stds(*[HEALTHY] * 6, ALIKE, HEALTHY, ALIKE, *[HEALTHY] * 11)) == []
    assert said(stds(*[ALIKE] * 20)) == [
        (0, "step 0: the embeddings"),
        (200, "embedding_std is under 0.013"),
    ]


@pytest.mark.parametrize(("later", "count"), [(22.0, 1), (21.9, 1), (22.1, 0)])
def test_a_knn_below_its_start(later: float, count: int) -> None:
    rows = [knn(-1, 30.05), knn(99, later), knn(199, later)]
    assert len(said(rows)) == count
    assert Signs(256, 1000).read(knn(99, 3)) == ""  # after a resume, what was before is unknown
