"""The arithmetic of the proof, and its options."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from launch import evidence, proof
from launch.evidence import LEWEL, PERMUTED, RANDOM
from launch.proof import CHOICE, Scores


def test_differences_are_paired_by_seed_and_by_image() -> None:
    generator = np.random.default_rng(0)
    theirs, ours = (100.0 * (generator.random((4, 50)) < share) for share in (0.5, 0.7))
    miou = {"random": [12.8, 13.4, 14.1, 11.9], "LEWEL_M": [20.1, 18.4, 22.9, 19.5]}
    scores, means = proof.tables(
        [
            Scores("random", 0.05, list(theirs), miou["random"]),
            Scores("LEWEL_M", 0.1, list(ours), miou["LEWEL_M"]),
        ]
    )
    assert scores.iloc[:, :3].to_numpy().tolist() == means.iloc[:, :3].to_numpy().tolist()
    assert scores.iloc[:, 3:].to_numpy() == pytest.approx(
        np.stack([theirs.mean(1), miou["random"], ours.mean(1), miou["LEWEL_M"]])
    )
    texts = []
    for a, b in ((ours.mean(0), theirs.mean(0)), (miou["LEWEL_M"], miou["random"])):
        ends = stats.ttest_rel(a, b).confidence_interval(0.95)
        texts.append(f"{np.mean(a) - np.mean(b):+.1f} ({ends.low:+.1f} to {ends.high:+.1f})")
    assert means.iloc[:, -1].tolist() == ["", "", *texts]
    assert means["lr"].tolist() == ["", "0.05", "", "0.1"]


class Here:
    """A pool of this process alone."""

    def map(self, job: Callable[..., Any], *columns: Sequence[Any]) -> Iterator[Any]:
        return map(job, *columns)


def test_a_proof(tmp_path: Path, tiny_bench: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one method, with two rates: each start's best one on the seed that is not reported."""
    monkeypatch.setattr(evidence, "METHODS", {LEWEL: evidence.METHODS[LEWEL]})
    monkeypatch.setattr(proof, "RATES", (1e-3, 1e-2))
    found = proof.compare(proof.Command(tmp_path, seeds=2), Here())  # type: ignore[arg-type]
    assert [one.name for one in found] == [RANDOM, LEWEL, PERMUTED]
    assert {(len(one.right), len(one.right[0]), len(one.miou)) for one in found} == {(2, 32, 2)}
    runs = [
        json.loads(path.read_text())
        for path in (tmp_path / "runs" / "segmentation").glob("*/metrics.json")
    ]
    assert len(runs) == 3 * (2 + 2)
    for one in found:
        tried = {r["lr"]: r["mIoU"] for r in runs if (r["method"], r["seed"]) == (one.name, CHOICE)}
        assert tried[one.lr] == max(tried.values()) and tried.keys() == {1e-3, 1e-2}
        reported = {r["seed"]: r for r in runs if r["method"] == one.name and r["seed"] != CHOICE}
        assert [reported[seed]["mIoU"] for seed in (0, 1)] == one.miou
        assert {row["lr"] for row in reported.values()} == {one.lr}
    assert len(list((tmp_path / "runs" / "pretrain").iterdir())) == 3
    _, means = proof.tables(found)
    assert len(means) == 6 and all("(" in text for text in means.iloc[2:, -1])


def test_one_seed_has_no_interval(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["launch/proof.py", "--seeds", "1"])
    with pytest.raises(SystemExit) as ended:
        proof.main()
    assert ended.value.code == 2 and "error: --seeds 1: an interval" in capsys.readouterr().err
