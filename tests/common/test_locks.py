"""Locks of files, and file systems that have none."""

import errno
import fcntl
import logging
import os
from pathlib import Path

import pytest
from filelock import Timeout

from common import locks


def refuse(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Let ``flock`` fail as on some file systems."""

    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)


def open_files() -> set[str]:
    return {os.readlink(path) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()}


def test_one_holds_a_lock_at_a_time(tmp_path: Path) -> None:
    with locks.locked(tmp_path / "lock"), pytest.raises(Timeout):
        locks.take(tmp_path / "lock", 0)
    lock = locks.take(tmp_path / "lock", 0)
    assert lock is not None
    lock.release()


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK])
def test_a_file_system_without_locks_is_a_warning(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    refuse(monkeypatch, number)
    with caplog.at_level(logging.WARNING):
        assert locks.take(tmp_path / "lock", 0) is None
    assert "is on a file system without locks" in caplog.text
    with locks.locked(tmp_path / "lock"), locks.locked(tmp_path / "lock"):
        pass
    assert str(tmp_path / "lock") not in open_files()


def test_another_error_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        locks.take(tmp_path / "lock")
