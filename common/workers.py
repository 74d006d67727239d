"""Workers of a data loader: a cluster's signals to them, and the user errors that they raise."""

import os
import signal
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

from common.errors import UserError

T = TypeVar("T")


def outlive_sigterm(worker: int = 0) -> None:
    """Let only the process that started this worker end it by SIGTERM; a ``worker_init_fn``.

    Some clusters send the signal to every process of a job that is to save and go on for a while.
    PyTorch lets a worker die of it, and the training with it.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


def items_of(loader: Iterable[T]) -> Iterator[T]:
    """Iterate over a data loader.

    Raises:
        UserError: a worker's, as it was raised there.
    """
    mistake = ""
    try:
        yield from loader
    except UserError as error:
        mistake = sentence(error)
        error.__traceback__ = None  # it would keep the loader, and its workers would linger
    if mistake:
        raise UserError(mistake)


def sentence(error: UserError) -> str:
    """The sentence of a worker's error, before which torch puts the worker's whole traceback."""
    return str(error).rpartition(f"{UserError.__name__}: ")[2].strip()
