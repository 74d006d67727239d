"""Attempts of a run: a file for each start, which no two copies of a job can both make.

After a node failure Slurm starts a job anew while its first copy may still be running there, and
writing into the same folder. So each copy has a number of its own, puts it into the names of what
it writes, and stops once it sees a higher one, or that its own is another's now.
"""

import json
import logging
import os
import socket
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FOLDER = "incarnations"

log = logging.getLogger("runs")


@dataclass(frozen=True)
class Attempt:
    """One copy of a run's job: its folder, its number from 1 on, and the content of its file."""

    folder: Path
    number: int
    mark: str

    @property
    def restarts(self) -> int:
        """The number of attempts before this one."""
        return self.number - 1

    @property
    def is_newest(self) -> bool:
        """False once a later copy of the job has begun, or the folder is another run's.

        After ``--fresh`` a file of this number may be the new run's.
        """
        try:
            mark = _mark(self.folder, self.number).read_text()
        except FileNotFoundError:
            return False
        return mark == self.mark and not _mark(self.folder, self.number + 1).exists()

    def require_newest(self) -> None:
        """Raise SystemExit if this is not the newest copy of the job."""
        if not self.is_newest:
            log.warning("a later copy of this job has begun: this one stops")
            raise SystemExit(1)


def begin(folder: Path) -> Attempt:
    """Begin the next attempt of a run; for the main process."""
    (folder / FOLDER).mkdir(exist_ok=True)
    number, mark = count(folder) + 1, json.dumps(_origin())
    while True:
        try:
            with open(_mark(folder, number), "x") as file:
                file.write(mark)
            return Attempt(folder, number, mark)
        except FileExistsError:  # another copy was faster
            number += 1


def count(folder: Path) -> int:
    """The number of attempts so far."""
    numbers = (path.stem for path in (folder / FOLDER).glob("*.json"))
    return max((int(stem) for stem in numbers if stem.isdigit()), default=0)


def is_of_this_job(folder: Path) -> bool:
    """True if the newest attempt was of this Slurm job, before Slurm started it anew."""
    try:
        newest = json.loads(_mark(folder, count(folder)).read_text())
        job, restart = newest["slurm_job"], int(newest["slurm_restart"])
    except (OSError, ValueError, KeyError, TypeError):  # none yet, or being written
        return False
    return bool(job) and job == this_slurm_job() and restart < slurm_restarts()


def this_slurm_job() -> str:
    """The Slurm job that this process is in, "" if none; an array's members differ in it."""
    return os.environ.get("SLURM_JOB_ID", "")


def slurm_restarts() -> int:
    """The number of times that Slurm has started this job anew, for whatever reason."""
    return int(os.environ.get("SLURM_RESTART_COUNT", 0))


def _mark(folder: Path, number: int) -> Path:
    return folder / FOLDER / f"{number:04d}.json"


def _origin() -> dict[str, Any]:
    return {
        "id": uuid.uuid4().hex,
        "slurm_job": this_slurm_job(),
        "slurm_restart": slurm_restarts(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }
