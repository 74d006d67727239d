"""A command of ``launch/`` typed on the cluster, and the job and run folder that come of it."""

import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from common import attempts
from common.runs import is_finished
from launch.cluster import slurm
from launch.cluster.records import Record
from launch.cluster.states import steps_done
from slurm_trial_parts.cluster import ROOT, Cluster, wait_for

PATIENCE_S = 900  # for a run on a machine that has other things to do
TAIL = 2000


def say(words: str) -> None:
    """A line about what happens, and when."""
    print(f"{time.strftime('%H:%M:%S')} {words}", flush=True)


@dataclass
class Run:
    """One run, and the job that has it.

    Attributes:
        cluster: where it is.
        words: the command, from the script's name on.
        folder: the run folder.
        job: the job that was given to it last.
        requeues: of jobs before this one.
        seconds: from the first command to the end.
    """

    cluster: Cluster
    words: tuple[str, ...]
    folder: Path
    job: str = ""
    requeues: int = 0
    seconds: float = 0.0
    started: float = field(default_factory=time.monotonic)

    def type_command(self) -> str:
        """Type the command, which submits the job; what it printed."""
        if self.job:
            self.requeues += self.cluster.requeues(self.job)
        printed = type_in(self.cluster, *self.words)
        record = Record.read(self.folder)
        if record is None:
            raise RuntimeError(f"no job was submitted: {printed}")
        self.job = record.job_id
        say(f"job {self.job}: submitted, {self.folder}")
        return printed

    @property
    def starts(self) -> int:
        """How often it was started."""
        return attempts.count(self.folder)

    @property
    def steps(self) -> int:
        """How many steps it has logged."""
        return steps_done(self.folder)

    def wait_until(self, starts: int, steps: int) -> None:
        """Wait until the run was started so often and has logged so many steps."""

        def reached() -> bool:
            if self.starts >= starts and self.steps >= steps:
                return True
            if is_finished(self.folder):
                raise RuntimeError(f"{self.folder.name} was finished too early")
            return False

        wait_for(reached, f"step {steps} of start {starts}", PATIENCE_S)

    def wait_for_start(self, starts: int) -> None:
        """Wait until the run was started so often."""
        self.wait_until(starts, 0)
        say(f"job {self.job}: start {self.starts} of the run, on {self.cluster.node(self.job)}")

    def wait_for_end(self) -> str:
        """Wait until Slurm says that the job is over; its word for how."""
        state = wait_for_end(self.job)
        self.seconds = time.monotonic() - self.started
        say(f"job {self.job}: {state} after {self.seconds:.0f} s")
        return state

    def all_requeues(self) -> int:
        """How often Slurm has started a job of the run anew."""
        return self.requeues + self.cluster.requeues(self.job)


def type_in(cluster: Cluster, *words: str, timeout_s: float = PATIENCE_S) -> str:
    """Type a command of ``launch/`` that must succeed; what it printed."""
    return cluster.run(sys.executable, str(ROOT / words[0]), *words[1:], timeout_s=timeout_s)


def wait_for_end(job: str) -> str:
    """Wait until Slurm says that a job is over; its word for how."""
    found: list[str] = []

    def over() -> bool:
        state = slurm.states([job])[job]
        if state.live or state.reason == slurm.NO_ANSWER:
            return False
        found.append(state.name)
        return True

    wait_for(over, f"end of job {job}", PATIENCE_S)
    return found[0]
