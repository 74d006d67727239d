"""Processes that fork while they belong to a process group."""

import os
import time

from common.distributed import REST_S, World
from tests.processes import in_processes


def _fork(world: World) -> None:
    started = time.monotonic()
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    assert time.monotonic() - started >= REST_S
    os.waitpid(pid, 0)


def test_the_threads_of_a_process_group_come_to_rest_before_a_fork() -> None:
    in_processes(_fork)
