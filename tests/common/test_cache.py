"""Values that are kept for the next run, or found anew where nothing can be kept."""

from pathlib import Path
from typing import Any, NoReturn

import pytest

from common import cache
from common.cache import cached


def test_on_a_full_disk_a_value_is_found_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> NoReturn:
        raise OSError(28, "No space left on device")

    monkeypatch.setenv("LEWEL_CACHE", str(tmp_path))
    monkeypatch.setattr(cache, "atomic_write", full)
    assert cached("kind", ["facts"], lambda: 5, int) == 5
    assert not list((tmp_path / "kind").glob("*.json"))
