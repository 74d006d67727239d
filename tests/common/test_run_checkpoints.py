"""Checkpoints by attempt and step: which is the newest, what stays, what is read."""

import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import attempts, checkpoints
from common.distributed import World
from common.errors import UserError
from common.run_checkpoints import KEPT, RunCheckpoints
from tests.alone import ALONE, attempt
from tests.processes import in_processes


def series(folder: Path, number: int = 1) -> RunCheckpoints:
    """Of a run that was started so often."""
    return RunCheckpoints(attempt(folder, number), "checkpoint", ".pth.tar")


def names(folder: Path) -> list[str]:
    return [path.name for path in series(folder).newest_first()]


@given(st.lists(st.tuples(st.integers(1, 12000), st.integers(0, 10**9)), unique=True, max_size=6))
def test_the_highest_attempt_comes_first_then_the_highest_step(
    tmp_path_factory: pytest.TempPathFactory, written: list[tuple[int, int]]
) -> None:
    folder = tmp_path_factory.mktemp("series")
    for number, step in written:
        series(folder)._path(number, step).touch()
    for other in ("checkpoint.pth.tar", "checkpoint_1_2.pth", ".checkpoint_1_2.pth.tar.x"):
        (folder / other).touch()
    expected = [f"checkpoint_{i:04d}_{s:09d}.pth.tar" for i, s in sorted(written, reverse=True)]
    assert names(folder) == expected


def test_only_the_newest_stay(tmp_path: Path) -> None:
    for step in range(1, 5):
        path = series(tmp_path).save(step, {"step": step})
        assert checkpoints.load(path) == {"step": step}
    assert names(tmp_path) == [f"checkpoint_0001_00000000{step}.pth.tar" for step in (4, 3)]
    assert len(list(tmp_path.glob("*.tar"))) == KEPT


def test_a_copy_that_has_a_successor_writes_nothing_more(tmp_path: Path) -> None:
    first = RunCheckpoints(attempts.begin(tmp_path), "checkpoint", ".pth.tar")
    first.save(10, {"step": 10})
    second = RunCheckpoints(attempts.begin(tmp_path), "checkpoint", ".pth.tar")
    with pytest.raises(SystemExit):
        first.save(20, {"step": 20})
    assert second.load(ALONE) == (tmp_path / "checkpoint_0001_000000010.pth.tar", {"step": 10})
    assert second.save(11, {"step": 11}).name == "checkpoint_0002_000000011.pth.tar"


def test_what_a_copy_still_writes_at_the_last_moment_comes_after_its_successors(
    tmp_path: Path,
) -> None:
    series(tmp_path, 2).save(11, {"step": 11})
    late = series(tmp_path, 1)
    checkpoints.save(late._path(1, 99), {"step": 99})  # it had looked just before
    found = series(tmp_path, 3).load(ALONE)
    assert found is not None and found[1] == {"step": 11}


def test_a_checkpoint_that_was_cut_short_falls_back_and_is_deleted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mine = series(tmp_path)
    assert mine.load(ALONE) is None and mine.newest_name == "none yet"
    mine.save(1, {"step": 1})
    mine.save(2, {"step": 2}).write_bytes(b"half")
    (tmp_path / ".checkpoint_0001_000000003.pth.tar.abc").write_bytes(b"half")
    with caplog.at_level(logging.WARNING):
        found = mine.load(ALONE)
    assert found is not None and found[1] == {"step": 1}
    assert "Falling back" in caplog.text and "000000002" in caplog.text
    mine.tidy(found[0])
    left = [path.name for path in tmp_path.iterdir() if path.is_file()]
    assert left == ["checkpoint_0001_000000001.pth.tar"]
    found[0].write_bytes(b"half")
    with pytest.raises(UserError, match=r"no checkpoint in .* can be read; --fresh"):
        mine.load(ALONE)


def _load(world: World, folder: Path) -> None:
    def read(path: Path) -> Any:
        if world.rank == 0 and "000000002" in path.name:
            raise UserError("this process cannot read it")
        return checkpoints.load(path)

    found = series(folder).load(world, read)
    assert found is not None and found[1] == {"step": 1}


def test_all_processes_load_the_one_that_the_first_could_read(tmp_path: Path) -> None:
    for step in (1, 2):
        series(tmp_path).save(step, {"step": step})
    in_processes(_load, tmp_path)
