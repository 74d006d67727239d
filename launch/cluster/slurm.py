"""What Slurm says of jobs: the queue first, then the accounts, where there are any."""

import os
import subprocess
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

TIMEOUT_S = 30
TRIES = 3
PAUSE_S = 3.0
ASK_S = (3.0, 15.0)  # between two questions about a job: at first, and while nothing changes
UNKNOWN = "UNKNOWN"
NO_ANSWER = "Slurm does not answer"  # the reason of an UNKNOWN that may be known again later
FINAL = frozenset(
    "BOOT_FAIL CANCELLED COMPLETED DEADLINE FAILED LAUNCH_FAILED NODE_FAIL OUT_OF_MEMORY PREEMPTED "
    "RECONFIG_FAIL REVOKED TIMEOUT".split()
)


@dataclass(frozen=True)
class State:
    """What Slurm says of a job.

    Attributes:
        name: Slurm's long word: PENDING, RUNNING, COMPLETED, ...; UNKNOWN if it knows nothing.
        reason: why a job is pending, as ``squeue`` says: Priority, Dependency, ...; for an
            UNKNOWN, ``NO_ANSWER`` if Slurm could not be asked.
    """

    name: str
    reason: str = ""

    @property
    def live(self) -> bool:
        """True while the job waits, runs, or will run again."""
        return self.name != UNKNOWN and self.name not in FINAL


def states(job_ids: Iterable[str]) -> dict[str, State]:
    """The state of each job, by one call of ``squeue``, and one of ``sacct`` for what it forgot.

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


class Watch:
    """One job's state, asked for now and then in a thread: Slurm may take long to answer."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        self._state: State | None = None
        self._question: threading.Thread | None = None
        self._answered = self._changed = time.monotonic()

    def look(self) -> State | None:
        """The state as last heard, without waiting; None before the first answer."""
        now = time.monotonic()
        pause = min(max(ASK_S[0], (now - self._changed) / 20), ASK_S[1])
        idle = self._question is None or not self._question.is_alive()
        if idle and (self._question is None or now - self._answered > pause):
            self._question = threading.Thread(target=self._ask, daemon=True)
            self._question.start()
        return self._state

    def _ask(self) -> None:
        state = states([self.job_id])[self.job_id]
        self._answered = time.monotonic()
        if state != self._state:
            self._state, self._changed = state, self._answered


def _squeue(job_ids: Sequence[str]) -> dict[str, State] | None:
    """What the controller knows of these jobs; None if it cannot be reached.

    It forgets jobs some minutes after their end (``MinJobAge``).
    """
    command = ["squeue", "-a", "-h", "-r", "-t", "all", "-o", "%i|%T|%r", "-j", ",".join(job_ids)]
    for attempt in range(TRIES):
        if attempt:
            time.sleep(PAUSE_S)
        try:
            answer = call(command, TIMEOUT_S)
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
    """How jobs ended, as the accounts have it; empty where there are none."""
    command = ["sacct", "-X", "-n", "-P", "-o", "JobID,State", "-j", ",".join(job_ids)]
    try:
        answer = call(command, TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    rows = [line.strip().split("|") for line in answer.stdout.splitlines()]
    found = {row[0]: State(row[1].split()[0]) for row in rows if len(row) == 2 and row[1].strip()}
    # A job that lives in the accounts alone was lost: its end never came to be written.
    return {job_id: state for job_id, state in found.items() if not state.live}


def call(command: Sequence[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
    """Run a command of Slurm's, whatever comes of it.

    Raises:
        OSError: if it is not there.
        subprocess.TimeoutExpired: if it took too long.
    """
    # SQUEUE_USERS and the like would hide jobs.
    environment = {name: v for name, v in os.environ.items() if not name.startswith("SQUEUE_")}
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout_s,
        env=environment,
    )
