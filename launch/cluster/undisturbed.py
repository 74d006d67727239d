"""What keeps a submission whole: one command at a time, and no signal in the middle of it."""

import errno
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, Timeout

from common import locks, runs
from common.errors import UserError

LOCK = ".submit.lock"  # in runs/
PATIENCE_S = 120.0  # for another command, which may be asking a node or waiting for sbatch
TRIES = 1000  # in /proc, say, no folder can be made, and the system calls that not found


@contextmanager
def alone(output_dir: Path) -> Iterator[None]:
    """Be the only command that looks for jobs in ``output_dir`` and submits others.

    The lock's file stays in ``runs/``; if that was made for it and has nothing else, both go.

    Raises:
        UserError: if another command does not end, or the folder cannot be written.
    """
    folder = output_dir / "runs"
    made: list[Path] = []
    lock = None
    try:
        try:
            lock = _take(folder / LOCK, made)
        except Timeout as error:
            raise UserError(
                f"another command is submitting jobs to {output_dir}; try again once it has ended."
            ) from error
        except OSError as error:
            raise runs.unwritable(folder, error) from error
        yield
    finally:
        if lock is not None and made and [*folder.iterdir()] == [folder / LOCK]:
            (folder / LOCK).unlink()  # while it is held: who waits for it looks again
        if lock is not None:
            lock.release()
        with suppress(OSError):
            for path in made:
                path.rmdir()


def _take(path: Path, made: list[Path]) -> BaseFileLock | None:
    """The lock; ``made`` becomes the folders that were made for it."""
    for _ in range(TRIES):
        made[:] = [above for above in path.parents if not above.exists()]
        # Another command, which was refused, deletes the folder that it made.
        with suppress(FileNotFoundError):
            path.parent.mkdir(parents=True, exist_ok=True)
            return locks.take(path, PATIENCE_S)
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path.parent))


@contextmanager
def noted(number: int, came: list[int]) -> Iterator[None]:
    """Add the signals of this number to ``came`` within the block, where they do nothing else.

    For the main thread.
    """
    before = signal.signal(number, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(number, before)


@contextmanager
def ctrl_c_later() -> Iterator[None]:
    """Ctrl-C within the block takes effect at its end, and spares the commands that it starts.

    For the main thread. If the block raises, that is the end, and Ctrl-C is forgotten.
    """
    came: list[int] = []
    with noted(signal.SIGINT, came):
        # Commands inherit what is blocked, but no handler. That alone would not do for this
        # process: the system gives the signal to another thread, and Python from there to this one.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    if came:
        signal.raise_signal(signal.SIGINT)
