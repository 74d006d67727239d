"""The jobs that runs were given to, and their states as Slurm tells them."""

import json
import os
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import write_json

RECORD = "job.json"  # in a run folder
TIMEOUT_S = 30  # of a command of Slurm's
TRIES, PAUSE_S = 3, 3.0
UNKNOWN = "UNKNOWN"
NO_ANSWER = "Slurm does not answer"  # the reason of an UNKNOWN that may be known again later
NEVER = "DependencyNeverSatisfied"
FINAL = frozenset(
    "BOOT_FAIL CANCELLED COMPLETED DEADLINE FAILED LAUNCH_FAILED NODE_FAIL OUT_OF_MEMORY PREEMPTED "
    "RECONFIG_FAIL REVOKED TIMEOUT".split()
)
WORDS = {
    "COMPLETED": "ended without a result",
    "BOOT_FAIL": "its node did not boot",
    "NODE_FAIL": "lost its node",
    "DEADLINE": "past its deadline",
    "OUT_OF_MEMORY": "out of memory",
    "TIMEOUT": "timed out",
    "PREEMPTED": "preempted for good",
    "CONFIGURING": "starting",
    "COMPLETING": "ending",
}


@dataclass(frozen=True)
class Record:
    """The job that a run was last given to: ``job.json`` in the run folder."""

    cluster: str  # slurm or local
    job_id: str  # 123, or 123_4 for a member of an array
    tasks: int  # processes
    submitit: str  # absolute folder of submitit's own files for this job
    submitted: str  # UTC, ISO 8601 to the second
    after: str = ""  # the Slurm job that must succeed first
    command: str = ""
    identity: dict[str, Any] = field(default_factory=dict)  # of the run; empty where not known

    def write(self, folder: Path) -> None:
        """Write the record into a run folder, atomically."""
        write_json(folder / RECORD, asdict(self))

    @classmethod
    def read(cls, folder: Path) -> "Record | None":
        """Read the record in a run folder; None if there is none that can be read."""
        try:
            saved = json.loads((folder / RECORD).read_text())
            known = {one.name for one in fields(cls)}  # a newer version may know more
            return cls(**{name: value for name, value in saved.items() if name in known})
        except (OSError, ValueError, TypeError, AttributeError):
            return None


@dataclass(frozen=True)
class State:
    """The state of a job, as Slurm tells it."""

    name: str  # Slurm's long word: PENDING, RUNNING, ...; UNKNOWN if it knows nothing
    reason: str = ""  # why it is pending: Priority, Dependency, ...; or NO_ANSWER

    @property
    def live(self) -> bool:
        """True while the job waits, runs, or will run again."""
        return self.name != UNKNOWN and self.name not in FINAL

    def in_words(self, after: str = "") -> str:
        """Describe the state; ``after`` is the job that a pending one waits for."""
        words = WORDS.get(self.name, self.name.lower().replace("_", " "))
        if self.reason == NEVER:
            parent = f"job {after}" if after else "a job"
            return f"{words} ({parent}, which it waits for, did not succeed)"
        if self.reason == "Dependency" and after:
            return f"{words} (after job {after})"
        shown = self.name in ("PENDING", UNKNOWN) and self.reason
        return f"{words} ({self.reason})" if shown else words


def states(job_ids: Iterable[str]) -> dict[str, State]:
    """Ask ``squeue`` once for the state of all jobs, and ``sacct`` for what it forgot.

    The queue alone says of a requeued job that it is alive: the accounts call it lost or preempted
    until it runs again. They are asked only for what the controller answered it does not know.
    """
    wanted = list(dict.fromkeys(job_ids))
    if not wanted:
        return {}
    queued = _squeue(wanted)
    if queued is None:
        return dict.fromkeys(wanted, State(UNKNOWN, NO_ANSWER))
    forgotten = [job_id for job_id in wanted if job_id not in queued]
    known = queued | (_sacct(forgotten) if forgotten else {})
    return {job_id: known.get(job_id, State(UNKNOWN)) for job_id in wanted}


def slurm_jobs(folders: Iterable[Path]) -> dict[Path, tuple[Record, State]]:
    """The Slurm jobs that runs were given to last, and their states, by run folder."""
    records = {path: record for path in folders if (record := Record.read(path))}
    records = {path: record for path, record in records.items() if record.cluster == "slurm"}
    known = states(record.job_id for record in records.values())
    if any(state.reason == NO_ANSWER for state in known.values()):
        raise _no_answer()
    return {path: (record, known[record.job_id]) for path, record in records.items()}


def check_controller() -> None:
    """Raise a UserError if Slurm's controller does not answer, without which sbatch hangs."""
    if _squeue(["1"]) is None:
        raise _no_answer()


def _no_answer() -> UserError:
    return UserError(
        "Slurm's controller does not answer; try again once `scontrol ping` says that it is up."
    )


def _squeue(job_ids: Sequence[str]) -> dict[str, State] | None:
    """The jobs that the controller knows; None if it cannot be reached.

    It forgets jobs some minutes after their end (``MinJobAge``).
    """
    command = ["squeue", "-a", "-h", "-r", "-t", "all", "-o", "%i|%T|%r", "-j", ",".join(job_ids)]
    for attempt in range(TRIES):
        if attempt:
            time.sleep(PAUSE_S)
        try:
            answer = call(command)
        except subprocess.TimeoutExpired:
            continue
        except OSError:  # no such command here
            return {}
        # With one job to ask for, having forgotten it is an error.
        if answer.returncode == 0 or "Invalid job id" in answer.stderr:
            rows = [line.strip().split("|", 2) for line in answer.stdout.splitlines()]
            return {
                row[0]: State(row[1], "" if row[2] in ("None", "(null)") else row[2])
                for row in rows
                if len(row) == 3
            }
    return None


def _sacct(job_ids: Sequence[str]) -> dict[str, State]:
    """The ends of jobs in the accounts; empty where there are none."""
    try:
        answer = call(["sacct", "-X", "-n", "-P", "-o", "JobID,State", "-j", ",".join(job_ids)])
    except (OSError, subprocess.TimeoutExpired):
        return {}
    rows = [line.strip().split("|") for line in answer.stdout.splitlines()]
    found = {row[0]: State(row[1].split()[0]) for row in rows if len(row) == 2 and row[1].strip()}
    # A job that lives in the accounts alone was lost: its end never came to be written.
    return {job_id: state for job_id, state in found.items() if not state.live}


def call(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a command of Slurm's; OSError or TimeoutExpired if it does not run or answer."""
    # SQUEUE_USERS and the like would hide jobs.
    environment = {name: v for name, v in os.environ.items() if not name.startswith("SQUEUE_")}
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=TIMEOUT_S,
        env=environment,
    )


def waited_in_vain(state: State, parent: State | None) -> bool:
    """True if a job ended, or waits for ever, because the one it depends on failed."""
    if state.reason == NEVER:
        return True
    failed = parent is not None and parent.name in FINAL - {"COMPLETED"}
    return state.name == "CANCELLED" and failed
