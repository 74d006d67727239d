"""Values that are kept for the next run, or found anew where nothing can be kept."""

from pathlib import Path
from typing import Any, NoReturn

import pytest

from common import cache
from common.cache import cached


def test_a_value_is_found_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEWEL_CACHE", str(tmp_path))
    found: list[int] = []

    def find() -> int:
        found.append(1)
        return len(found)

    assert [cached("kind", ["facts"], find, int) for _ in range(3)] == [1, 1, 1]
    assert cached("kind", ["others"], find, int) == 2
    for file in (tmp_path / "kind").glob("*.json"):
        file.write_text("cut sho")
    assert cached("kind", ["facts"], find, int) == 3
    assert sorted(file.read_text() for file in (tmp_path / "kind").glob("*.json")) == [
        "3",
        "cut sho",
    ]


def test_on_a_full_disk_a_value_is_found_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> NoReturn:
        raise OSError(28, "No space left on device")

    monkeypatch.setenv("LEWEL_CACHE", str(tmp_path))
    monkeypatch.setattr(cache, "atomic_write", full)
    assert cached("kind", ["facts"], lambda: 5, int) == 5
    assert not list((tmp_path / "kind").glob("*.json"))
