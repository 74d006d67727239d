"""A signal that comes before a job can handle it waits until it can."""

import os
import signal
import subprocess
import sys

import pytest

from launch.slurm import hold_signals

JOB = """
import signal, sys
print("started", flush=True)
sys.stdin.readline()
caught = []
numbers = [signal.Signals[f"SIG{name}"] for name in sys.argv[1:]]
for number in numbers:
    signal.signal(number, lambda n, frame: caught.append(signal.Signals(n).name))
signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
print(*sorted(caught), flush=True)
"""


def told_early(command: list[str], names: list[str], **variables: str) -> tuple[int, str]:
    """Status and last words of a job that gets signals while it starts."""
    job = subprocess.Popen(
        [*command, "-c", JOB, *names],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **variables},
    )
    assert job.stdout is not None and job.stdout.readline() == "started\n"
    for name in names:
        job.send_signal(signal.Signals[f"SIG{name}"])
    try:
        words = job.communicate("go on\n", timeout=60)[0]
    except BrokenPipeError:
        words = ""
    return job.wait(), words.strip()


HELD = [sys.executable, "-I", "-S", hold_signals.__file__, sys.executable, "-P"]


@pytest.mark.parametrize(
    ("names", "variables"),
    [
        (["TERM", "USR2", "USR2"], {}),
        (["TERM", "USR1"], {"SUBMITIT_PREEMPT_SIGNAL": "USR1"}),
    ],
)
def test_a_signal_that_comes_early_is_heard_later(
    names: list[str], variables: dict[str, str]
) -> None:
    expected = " ".join(sorted({f"SIG{name}" for name in names}))
    assert told_early(HELD, names, **variables) == (0, expected)


def test_other_signals_are_not_held() -> None:
    assert told_early(HELD, ["USR1"]) == (-signal.SIGUSR1, "")
