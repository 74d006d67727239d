"""The arithmetic of the proof, and its options."""

import numpy as np
import pytest
from scipy import stats

from launch import proof
from launch.proof import Scores


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


def test_one_seed_has_no_interval(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["launch/proof.py", "--seeds", "1"])
    with pytest.raises(SystemExit) as ended:
        proof.main()
    assert ended.value.code == 2 and "error: --seeds 1: an interval" in capsys.readouterr().err
