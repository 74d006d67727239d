"""The life of a job in one of its processes: whose folder it is, its log, its process group."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import attempts, distributed, runs
from common.attempts import Attempt
from common.distributed import World, from_main
from common.errors import UserError
from common.files import write_json
from common.preemption import Preemption, handle_signals

LINE = "[%(asctime)s] %(levelname)s %(name)s: %(message)s"

log = logging.getLogger("runs")


@dataclass(frozen=True)
class Run:
    """A run, as one of the processes of its job sees it.

    Attributes:
        folder: the run folder.
        world: this process among the others.
        attempt: which copy of the job this is.
        preemption: what the cluster tells the job.
    """

    folder: Path
    world: World
    attempt: Attempt
    preemption: Preemption

    def finish(self, metrics: dict[str, Any]) -> None:
        """Write the final metrics; for the main process.

        Raises:
            SystemExit: if a later copy of this job has begun.
        """
        self.attempt.require_newest()
        runs.finish(self.folder, metrics)


@contextmanager
def running(
    folder: Path, identity: dict[str, Any], device: str, config: dict[str, Any] | None = None
) -> Iterator[Run]:
    """Make ``folder`` this job's, log into it, and join the other processes until the block ends.

    Args:
        folder: the run folder; made if need be.
        identity: what makes the run this one.
        device: ``auto``, ``cpu`` or ``cuda``.
        config: the whole configuration, kept as ``config.json``.

    Raises:
        UserError: in every process, if the folder holds another run, another job is running in
            it, or the device is not there.
    """
    runs.check_same(folder, identity)
    with (
        handle_signals() as preemption,
        distributed.joined(device) as world,
        _hold(folder, world) as mine,
    ):
        preemption.join(world, mine)
        folder.mkdir(exist_ok=True)  # another node may not see it yet
        _log_to(folder, world.rank)
        if world.is_main:
            runs.claim(folder, identity)
            if config is not None:
                write_json(folder / "config.json", config)
            if mine.restarts:
                log.info("start %d of this run", mine.number)
        yield Run(folder, world, mine, preemption)
        preemption.close()


@contextmanager
def _hold(folder: Path, world: World) -> Iterator[Attempt]:
    """The folder is this job's within the block; the main process holds it for all."""
    lock, mine, refusal = None, None, ""
    if world.is_main:
        try:
            lock = runs.hold(folder)
            mine = attempts.begin(folder)
        except UserError as error:
            refusal = str(error)
        except OSError as error:
            refusal = str(runs.unwritable(folder, error))
    mine, refusal = from_main((mine, refusal))
    if refusal:
        raise UserError(refusal)
    try:
        yield mine
    finally:
        if lock is not None:
            lock.release()


def _log_to(folder: Path, rank: int) -> None:
    """Send the log of this process to its file in ``folder``; rank 0 also to stdout."""
    handlers: list[logging.Handler] = [
        logging.FileHandler(folder / ("log.txt" if rank == 0 else f"log_rank{rank}.txt"))
    ]
    if rank == 0:
        handlers.append(logging.StreamHandler(sys.stdout))
    logging.basicConfig(
        level=logging.INFO, format=LINE, datefmt="%m-%d %H:%M:%S", handlers=handlers, force=True
    )
    logging.captureWarnings(True)
