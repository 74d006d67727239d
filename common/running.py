"""The life of a job in one of its processes: whose folder it is, its log, its process group."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import distributed, incarnations, runs
from common.distributed import World, from_main
from common.errors import UserError
from common.files import write_json
from common.incarnations import Incarnation
from common.logs import setup_logging
from common.notice import Notice, listening

log = logging.getLogger("runs")


@dataclass(frozen=True)
class Run:
    """A run, as one of the processes of its job sees it.

    Attributes:
        folder: the run folder.
        world: this process among the others.
        incarnation: which copy of the job this is.
        notice: what the cluster tells the job.
    """

    folder: Path
    world: World
    incarnation: Incarnation
    notice: Notice

    def finish(self, metrics: dict[str, Any]) -> None:
        """Write the final metrics; for the main process.

        Raises:
            SystemExit: if a later copy of this job has begun.
        """
        self.incarnation.require_newest()
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
    with listening() as notice, distributed.joined(device) as world, _hold(folder, world) as mine:
        notice.join(world, mine)
        folder.mkdir(exist_ok=True)  # another node may not see it yet
        setup_logging(folder, world.rank)
        if world.is_main:
            runs.claim(folder, identity)
            if config is not None:
                write_json(folder / "config.json", config)
            if mine.restarts:
                log.info("start %d of this run", mine.number)
        yield Run(folder, world, mine, notice)
        notice.close()


@contextmanager
def _hold(folder: Path, world: World) -> Iterator[Incarnation]:
    """The folder is this job's within the block; the main process holds it for all."""
    lock, mine, refusal = None, None, ""
    if world.is_main:
        try:
            lock = runs.hold(folder)
            mine = incarnations.begin(folder)
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
