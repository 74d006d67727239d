"""The results table has one row per finished run, however runs end."""

import multiprocessing
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from common import runs
from common.errors import UserError
from launch.tables import tables


def finish(output_dir: Path, name: str, barrier: Any = None) -> None:
    metrics = {"kind": "transfer", "config": "c", "method": name, "box_AP": 38.5, "box_APs": None}
    if barrier is not None:
        barrier.wait()
    runs.finish(output_dir / "runs" / "transfer" / name, metrics)
    tables.rebuild(output_dir)


def rows(output_dir: Path) -> pd.DataFrame:
    return pd.read_csv(output_dir / "results" / "transfer.csv")


def test_two_runs_that_end_at_once_are_both_in_the_table(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    for number in range(4):
        barrier = context.Barrier(2)
        names = [f"{number}{side}" for side in "ab"]
        pair = [context.Process(target=finish, args=(tmp_path, n, barrier)) for n in names]
        for process in pair:
            process.start()
        for process in pair:
            process.join()
            assert process.exitcode == 0
        assert set(names) <= set(rows(tmp_path)["run"].astype(str))
    assert len(rows(tmp_path)) == 8


def test_rebuilding_twice_adds_nothing_and_a_deleted_run_goes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        finish(tmp_path, name)
    (tmp_path / "runs" / "transfer" / "half").mkdir()  # not finished
    first = (tmp_path / "results" / "transfer.csv").read_bytes()
    tables.rebuild(tmp_path)
    assert (tmp_path / "results" / "transfer.csv").read_bytes() == first
    assert list(rows(tmp_path)["run"]) == ["a", "b"]
    shutil.rmtree(tmp_path / "runs" / "transfer" / "a")
    tables.rebuild(tmp_path)
    assert list(rows(tmp_path)["run"]) == ["b"]


def test_columns_are_the_tables_and_unknown_values_are_empty(tmp_path: Path) -> None:
    finish(tmp_path, "a")
    frame = rows(tmp_path)
    assert list(frame.columns) == tables.TABLES["transfer"]
    assert frame["box_AP"][0] == 38.5 and frame["box_APs"].isna()[0]


@pytest.mark.parametrize("text", ['{"a', "{}", "[]", '{"kind": "segmentation"}', "\xff"])
def test_a_run_whose_metrics_are_none_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    path = tmp_path / "runs" / "transfer" / "broken" / runs.FINAL
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="latin-1")
    finish(tmp_path, "a")
    assert list(rows(tmp_path)["run"]) == ["a"]
    assert f"{path} is left out: it does not hold the metrics of a transfer run" in caplog.text


def test_a_file_in_the_place_of_the_tables_is_named(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("")
    with pytest.raises(UserError, match=r"cannot make the folder \S*results: File exists; move"):
        tables.rebuild(tmp_path)
