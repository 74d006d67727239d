"""The life of a job in one of its processes: whose folder it is, its log, its process group."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common import distributed, runs
from common.distributed import World
from common.files import write_json
from common.logs import setup_logging


@contextmanager
def running(
    folder: Path, identity: dict[str, Any], device: str, config: dict[str, Any] | None = None
) -> Iterator[World]:
    """Make ``folder`` this run's, log into it, and join the other processes until the block ends.

    Args:
        folder: the run folder; made if need be.
        identity: what makes the run this one.
        device: ``auto``, ``cpu`` or ``cuda``.
        config: the whole configuration, kept as ``config.json``.

    Raises:
        UserError: if the folder holds another run, or the device is not there.
    """
    runs.check_same(folder, identity)
    world = distributed.start(device)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        setup_logging(folder, world.rank)
        if world.is_main:
            runs.claim(folder, identity)
            if config is not None:
                write_json(folder / "config.json", config)
        yield world
    finally:
        distributed.stop()
