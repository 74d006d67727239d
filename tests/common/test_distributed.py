"""Processes that fork while they belong to a process group."""

import os
import time

from common.distributed import REST_S, World
from tests.processes import in_processes


def test_the_threads_of_a_process_group_come_to_rest_before_a_fork() -> None:
    in_processes(_check_haste, size=1)
    in_processes(_check_pause)


def _check_haste(world: World) -> None:  # in a process of its own: forking a large one takes long
    assert _seconds_of_a_fork() < REST_S


def _check_pause(world: World) -> None:
    assert _seconds_of_a_fork() >= REST_S


def _seconds_of_a_fork() -> float:
    """The least of some."""
    seconds = []
    for _ in range(5):
        started = time.monotonic()
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        seconds.append(time.monotonic() - started)
        os.waitpid(pid, 0)
    return min(seconds)
