"""Data-loader workers in a job that a cluster signals."""

import os
import signal
import threading


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
