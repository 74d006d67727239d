"""How often a run was started: a file for each time, which no two copies of a job can both make.

After a node failure Slurm starts a job anew while its first copy may still be running there, and
writing into the same folder. So each copy has a number of its own, puts it into the names of what
it writes, and stops once it sees a higher one.
"""

import json
import os
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FOLDER = "incarnations"


@dataclass(frozen=True)
class Incarnation:
    """One copy of a run's job, from its start to its end.

    Attributes:
        folder: the run folder.
        number: 1 for the first.
    """

    folder: Path
    number: int = 1

    @property
    def restarts(self) -> int:
        """How often the run had been started before."""
        return self.number - 1

    @property
    def is_newest(self) -> bool:
        """False once a later copy of the job has begun."""
        return not _mark(self.folder, self.number + 1).exists()


def begin(folder: Path) -> Incarnation:
    """Start the next incarnation of a run; for the main process."""
    (folder / FOLDER).mkdir(exist_ok=True)
    number = count(folder) + 1
    while True:
        try:
            with open(_mark(folder, number), "x") as file:
                json.dump(_origin(), file)
            return Incarnation(folder, number)
        except FileExistsError:  # another copy was faster
            number += 1


def count(folder: Path) -> int:
    """How often the run was started; 0 if never."""
    numbers = (path.stem for path in (folder / FOLDER).glob("*.json"))
    return max((int(stem) for stem in numbers if stem.isdigit()), default=0)


def newest_slurm_job(folder: Path) -> str:
    """The Slurm job of the newest incarnation; "" if it has none."""
    try:
        return str(json.loads(_mark(folder, count(folder)).read_text())["slurm_job"])
    except (OSError, ValueError, KeyError):  # none yet, or being written
        return ""


def this_slurm_job() -> str:
    """The Slurm job that this process is in, "" if none; an array's members differ in it."""
    return os.environ.get("SLURM_JOB_ID", "")


def _mark(folder: Path, number: int) -> Path:
    return folder / FOLDER / f"{number:04d}.json"


def _origin() -> dict[str, Any]:
    return {
        "slurm_job": this_slurm_job(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }
