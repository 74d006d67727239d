"""Locks of files; on a file system without any, nothing is held and nothing waits."""

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import BaseFileLock, FileLock

# What flock says on a file system without locks; the last, NFS's whose lock server does not run.
WITHOUT = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}

log = logging.getLogger("locks")


def take(path: Path, timeout_s: float = -1) -> BaseFileLock | None:
    """Take a lock that ends with the process at the latest; None where there are no locks.

    Raises ``filelock.Timeout`` if another process holds it for ``timeout_s``; -1 waits for ever.
    """
    # A file instead of a lock, which filelock would make, would outlive a process that is killed.
    lock = FileLock(path, fallback_to_soft=False)
    try:
        lock.acquire(timeout=timeout_s)
    except OSError as error:
        if error.errno not in WITHOUT:  # filelock.Timeout has no errno
            raise
        log.warning("%s is on a file system without locks: start no second job there", path.parent)
        return None
    return lock


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock ``path`` within the block."""
    lock = take(path)
    try:
        yield
    finally:
        if lock is not None:
            lock.release()
