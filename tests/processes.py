"""Running a function in several gloo processes."""

import multiprocessing
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
    # Forks of a server that has imported torch and Detectron2, once for all tests.
    multiprocessing.set_forkserver_preload(
        ["pretrain.train", "pretrain.evaluation.classifier", "segmentation.train"]
    )
    given = dict(os.environ), size, port, function, arguments
    mp.start_processes(_enter, given, nprocs=size, start_method="forkserver")


def gloos_threads() -> int:
    """The number of gloo's threads in this process."""
    names = (task.read_text() for task in Path("/proc/self/task").glob("*/comm"))
    return sum("gloo" in name for name in names)


def _enter(
    rank: int,
    environment: dict[str, str],
    size: int,
    port: int,
    function: Callable[..., None],
    arguments: Any,
) -> None:
    os.environ.clear()  # the server's
    os.environ.update(
        environment,
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
