"""The checkpoints of a run: ``<stem>_<attempt>_<step><suffix>``, and only the newest few.

The newest is the one of the highest attempt, and of its highest step: what an older copy of
the job still writes never comes before it.
"""

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import checkpoints
from common.attempts import Attempt
from common.distributed import World, from_main
from common.errors import UserError

KEPT = 2

log = logging.getLogger("checkpoints")


class RunCheckpoints:
    """The checkpoints in a run folder.

    Args:
        attempt: of the job that writes; a reader has no use for it.
        stem: what their names begin with.
        suffix: what they end with.
    """

    def __init__(self, attempt: Attempt, stem: str, suffix: str) -> None:
        self.attempt, self.folder = attempt, attempt.folder
        self.stem, self.suffix = stem, suffix

    def save(self, step: int, state: dict[str, Any]) -> Path:
        """Write the checkpoint of ``step`` and delete all but the newest; for the main process.

        Returns:
            The newest checkpoint.

        Raises:
            SystemExit: if a later copy of this job has begun.
        """
        self.attempt.require_newest()
        checkpoints.save(self._path(self.attempt.number, step), state)
        paths = self.newest_first()
        for path in paths[KEPT:]:
            path.unlink(missing_ok=True)
        return paths[0]

    def load(
        self, world: World, read: Callable[[Path], Any] = checkpoints.load
    ) -> tuple[Path, Any] | None:
        """The newest checkpoint that can be read, the same in every process; None if there is none.

        Raises:
            UserError: if there are checkpoints, and none of them can be read.
        """
        found = self._newest_readable(read) if world.is_main else None
        name = from_main(found[0].name if found else "")
        if world.is_main or not name:
            return found
        return self.folder / name, read(self.folder / name)

    def tidy(self, loaded: Path | None) -> None:
        """Delete what killed copies of the job left: halves of files, and what is newer than
        ``loaded`` but could not be read. For the main process.
        """
        for path in self.folder.glob(f".{self.stem}_*"):
            path.unlink(missing_ok=True)
        for path in self.newest_first():
            if path == loaded:
                return
            path.unlink(missing_ok=True)

    def newest_first(self) -> list[Path]:
        """All of them."""
        pattern = re.compile(rf"{self.stem}_(\d+)_(\d+){re.escape(self.suffix)}")
        found = []
        for path in self.folder.iterdir():
            if match := pattern.fullmatch(path.name):
                found.append((int(match[1]), int(match[2]), path))
        return [path for *_, path in sorted(found, reverse=True)]

    @property
    def newest_name(self) -> str:
        """The newest file's name, or what to say where there is none."""
        paths = self.newest_first()
        return paths[0].name if paths else "none yet"

    def _path(self, attempt: int, step: int) -> Path:
        return self.folder / f"{self.stem}_{attempt:04d}_{step:09d}{self.suffix}"

    def _newest_readable(self, read: Callable[[Path], Any]) -> tuple[Path, Any] | None:
        paths = self.newest_first()
        for path in paths:
            try:
                return path, read(path)
            except UserError as error:
                log.warning("%s Falling back to the checkpoint before it.", error)
        if paths:
            raise UserError(
                f"no checkpoint in {self.folder} can be read; --fresh starts the run again."
            )
        return None
