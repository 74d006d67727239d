"""Start a job's Python with Slurm's signals held back: ``hold_signals.py PROGRAM WORD...``.

A job needs some seconds until it can handle a signal, and one that comes before then would end it
as failed, without a requeue. Blocked, a signal waits for :mod:`common.preemption`, across the exec.

The standard library alone, and little of it: until this runs, nothing is held.
"""

import os
import signal
import sys


def held() -> set[signal.Signals]:
    """The signal that submitit asks Slurm for, and the one that Slurm sends of its own accord."""
    asked = os.environ.get("SUBMITIT_PREEMPT_SIGNAL", "USR2")
    return {signal.Signals[f"SIG{asked}"], signal.SIGTERM}


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, held())
    os.execv(sys.argv[1], sys.argv[1:])
