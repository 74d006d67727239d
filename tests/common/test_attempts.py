"""Every start of a run has a number of its own."""

import multiprocessing
import shutil
from pathlib import Path

from common import attempts


def test_starts_are_counted_and_an_older_one_sees_the_newer(tmp_path: Path) -> None:
    assert attempts.count(tmp_path) == 0
    first = attempts.begin(tmp_path)
    assert (first.number, first.restarts, first.is_newest) == (1, 0, True)
    second = attempts.begin(tmp_path)
    assert (second.number, second.restarts) == (2, 1)
    assert second.is_newest and not first.is_newest
    assert attempts.count(tmp_path) == 2


def _begin(folder: Path, numbers: "multiprocessing.Queue[int]") -> None:
    for _ in range(20):
        numbers.put(attempts.begin(folder).number)


def test_copies_that_begin_at_once_have_different_numbers(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    numbers = context.Queue()
    copies = [context.Process(target=_begin, args=(tmp_path, numbers)) for _ in range(4)]
    for copy in copies:
        copy.start()
    found = [numbers.get(timeout=20) for _ in range(80)]
    for copy in copies:
        copy.join()
    assert sorted(found) == list(range(1, 81))


def test_a_run_begun_afresh_is_told_from_an_old_copy_of_the_same_number(tmp_path: Path) -> None:
    old = attempts.begin(tmp_path)
    shutil.rmtree(tmp_path / "incarnations")
    new = attempts.begin(tmp_path)
    assert (old.number, new.number) == (1, 1)
    assert new.is_newest and not old.is_newest
    (tmp_path / "incarnations" / "0001.json").write_text('{"id": "')  # half-written yet
    assert not old.is_newest
