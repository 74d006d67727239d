"""Folders that a test may not write or see into, whoever runs it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65534


@contextmanager
def forbidden(folder: Path, mode: int = 0) -> Iterator[None]:
    """Give ``folder`` a mode within the block, and be somebody whom it binds, as root is not."""
    before, users = folder.stat().st_mode, os.getresuid()
    folder.chmod(mode)
    if users[1] == 0:
        os.setresuid(NOBODY, NOBODY, 0)
    try:
        yield
    finally:
        os.setresuid(*users)
        folder.chmod(before)
