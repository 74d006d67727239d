"""The checkpoints of a run: ``<stem>_<attempt>_<step><suffix>``, and only the newest few.

The newest is the one of the highest attempt, and of its highest step: what an older copy of the
job still writes never comes before it.
"""

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import checkpoints
from common.attempts import Attempt
from common.distributed import World, by_main
from common.errors import UserError

KEPT = 2

log = logging.getLogger("checkpoints")


class RunCheckpoints:
    """The checkpoints in the folder of an attempt, by the beginning and the end of their names."""

    def __init__(self, attempt: Attempt, stem: str, suffix: str) -> None:
        self.attempt, self.folder = attempt, attempt.folder
        self.stem, self.suffix = stem, suffix

    def save(self, step: int, state: dict[str, Any]) -> Path:
        """Write the checkpoint of ``step``, delete old ones, and return its path.

        The main process alone calls it. SystemExit if a later copy of this job has begun.
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
        """The newest checkpoint that the main process can read, and its content, in every process.

        None if there is no checkpoint; a UserError if there are some, and none can be read.
        """
        found: list[tuple[Path, Any]] = []

        def newest() -> str:
            for path in (paths := self.newest_first()):
                try:
                    found.append((path, read(path)))
                    return path.name
                except UserError as error:
                    log.warning("%s Falling back to the checkpoint before it.", error)
            if paths:
                raise UserError(
                    f"no checkpoint in {self.folder} can be read; --fresh starts the run again."
                )
            return ""

        name = by_main(newest)
        if name and not world.is_main:
            return self.folder / name, read(self.folder / name)
        return found[0] if found else None

    def tidy(self, loaded: Path | None) -> None:
        """Delete the remains of killed copies of the job; for the main process.

        These are halves of files, and checkpoints newer than ``loaded`` that could not be read.
        """
        for path in self.folder.glob(f".{self.stem}_*"):
            path.unlink(missing_ok=True)
        for path in self.newest_first():
            if path == loaded:
                return
            path.unlink(missing_ok=True)

    def newest_first(self) -> list[Path]:
        """The checkpoints in the folder, by attempt and step."""
        return newest_first(self.folder, self.stem, self.suffix)

    @property
    def newest_name(self) -> str:
        """The newest file's name, or "none yet"."""
        paths = self.newest_first()
        return paths[0].name if paths else "none yet"

    def _path(self, attempt: int, step: int) -> Path:
        return self.folder / f"{self.stem}_{attempt:04d}_{step:09d}{self.suffix}"


def newest_first(folder: Path, stem: str, suffix: str) -> list[Path]:
    """The checkpoints that a run's folder has, by attempt and step."""
    pattern = re.compile(rf"{stem}_(\d+)_(\d+){re.escape(suffix)}")
    found = []
    for path in folder.iterdir():
        if match := pattern.fullmatch(path.name):
            found.append((int(match[1]), int(match[2]), path))
    return [path for *_, path in sorted(found, reverse=True)]
