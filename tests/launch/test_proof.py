"""The arithmetic of the proof, and its options."""

import pytest
from scipy import stats

from launch import proof


def test_the_interval_is_that_of_a_paired_t_test() -> None:
    ours, theirs = [20.1, 18.4, 22.9, 19.5], [12.8, 13.4, 14.1, 11.9]
    expected = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    mean, low, high = proof.t_interval([a - b for a, b in zip(ours, theirs, strict=True)])
    assert (low, high) == pytest.approx((expected.low, expected.high))
    assert mean == pytest.approx(sum(ours) / 4 - sum(theirs) / 4)


def test_differences_are_from_the_same_seed_and_measure() -> None:
    rows = [
        ["random", "kNN accuracy", "", 50.0, 60.0],
        ["LEWEL_B", "kNN accuracy", "", 60.0, 70.0],
        ["random", "fcn", 0.1, 10.0, 12.0],
        ["LEWEL_B", "fcn", 0.05, 15.0, 16.0],
    ]
    assert proof.texts(rows, "random") == [
        ["random", "kNN accuracy", "", "55.0", ""],
        ["LEWEL_B", "kNN accuracy", "", "65.0", "+10.0 (+10.0 to +10.0)"],
        ["random", "fcn", "0.1", "11.0", ""],
        ["LEWEL_B", "fcn", "0.05", "15.5", "+4.5 (-1.9 to +10.9)"],
    ]


def test_one_seed_has_no_interval(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["launch/proof.py", "--seeds", "1"])
    with pytest.raises(SystemExit) as ended:
        proof.main()
    assert ended.value.code == 2 and "error: --seeds 1: an interval" in capsys.readouterr().err
