"""Running a function in several gloo processes."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.multiprocessing as mp

from common import distributed


def in_processes(function: Callable[..., None], *arguments: Any, size: int = 2) -> None:
    """Call ``function(world, *arguments)`` in ``size`` CPU processes; their errors are raised."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(_enter, (size, port, function, arguments), nprocs=size)


def gloos_threads() -> int:
    """The number of gloo's threads in this process."""
    names = (task.read_text() for task in Path("/proc/self/task").glob("*/comm"))
    return sum("gloo" in name for name in names)


def _enter(rank: int, size: int, port: int, function: Callable[..., None], arguments: Any) -> None:
    os.environ.update(
        RANK=str(rank),
        WORLD_SIZE=str(size),
        LOCAL_RANK=str(rank),
        LOCAL_WORLD_SIZE=str(size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    world = distributed.start("cpu")
    try:
        function(world, *arguments)
    finally:
        distributed.stop()
