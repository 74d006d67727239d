"""A running job in one of its processes: its folder, its log, its process group."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from filelock import BaseFileLock

from common import attempts, distributed, runs
from common.attempts import Attempt
from common.distributed import World, by_main
from common.files import write_json
from common.preemption import Preemption, handle_signals

LINE = "[%(asctime)s] %(levelname)s %(name)s: %(message)s"

log = logging.getLogger("runs")
Config = TypeVar("Config", bound=Any)  # a configuration that names weights


@dataclass(frozen=True)
class Run:
    """A run, in one of the processes of its job."""

    folder: Path
    world: World
    attempt: Attempt
    preemption: Preemption

    def settled(self, config: Config) -> Config:
        """The configuration with the SHA-256 of its weights, which the folder keeps.

        Every process of the job calls this; the main one reads the file.
        """

        def settle() -> Config:
            found = replace(config, weights=config.weights.settled())
            runs.check_same(self.folder, found.identity())
            runs.claim(self.folder, found.identity())
            return found

        return by_main(settle)

    def finish(self, metrics: dict[str, Any]) -> None:
        """Write the final metrics, in the main process; SystemExit if a later copy has begun."""
        self.attempt.require_newest()
        runs.finish(self.folder, metrics)


@contextmanager
def running(
    folder: Path, identity: dict[str, Any], device: str, config: dict[str, Any] | None = None
) -> Iterator[Run]:
    """Make ``folder`` this job's, log into it, and join the other processes until the block ends.

    ``identity`` makes the run this one; ``config`` is kept as ``config.json``. Raises a UserError
    in every process if the folder holds another run, or another job is running in it.
    """
    runs.check_same(folder, identity)
    with (
        handle_signals() as preemption,
        distributed.joined(device) as world,
        _hold(folder) as attempt,
    ):
        preemption.join(world, attempt)
        folder.mkdir(exist_ok=True)  # another node may not see it yet
        _log_to(folder, world.rank)
        if world.is_main:
            runs.claim(folder, identity)
            if config is not None:
                write_json(folder / "config.json", config)
            if attempt.restarts:
                log.info("start %d of this run", attempt.number)
        yield Run(folder, world, attempt, preemption)
        preemption.close()


@contextmanager
def _hold(folder: Path) -> Iterator[Attempt]:
    """Hold the folder for this job within the block; the main process does so for all."""
    locks: list[BaseFileLock | None] = []

    def begin() -> Attempt:
        locks.append(runs.hold(folder))
        try:
            return attempts.begin(folder)
        except OSError as error:
            raise runs.unwritable(folder, error) from error

    try:
        yield by_main(begin)
    finally:
        for lock in locks:
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
