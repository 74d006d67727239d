"""A command of ``launch/`` typed on the cluster, and the job and run folder that come of it."""

import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.slurm.kill_and_resume import ROOT, read_lines
from tests.slurm.sandbox.cluster import Sandbox
from tests.slurm.sandbox.layout import SandboxError, wait_for

PATIENCE_S = 900  # for a run on a machine that has other things to do


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
        total: steps of the whole run.
        job: the job that was given to it last.
        earlier: requeues of jobs before this one.
        seconds: from the first command to the end.
    """

    cluster: Sandbox
    words: tuple[str, ...]
    folder: Path
    total: int = 0
    job: str = ""
    earlier: int = 0
    seconds: float = 0.0
    started: float = field(default_factory=time.monotonic)

    def type_command(self) -> None:
        """Type the command, which submits the job."""
        if self.job:
            self.earlier = self.requeues
        type_in(self.cluster, *self.words)
        self.job = record(self.folder)["job_id"]
        say(f"job {self.job}: submitted, {self.folder}")

    def say(self, words: str) -> None:
        """A line about what happens to the run."""
        say(f"job {self.job}, step {self.steps} of {self.total}: {words}")

    @property
    def starts(self) -> int:
        """Number of its starts."""
        return len(list(self.folder.glob("incarnations/*.json")))

    @property
    def steps(self) -> int:
        """Number of steps in its log."""
        rows = read_lines(self.folder)
        return int(rows[-1].get("step", rows[-1].get("iteration", -1))) + 1 if rows else 0

    @property
    def requeues(self) -> int:
        """Number of times that Slurm has started a job of the run anew."""
        return self.earlier + self.cluster.requeues(self.job)

    def wait_until(self, starts: int, share: float = 0) -> None:
        """Wait until the run was started so often and has logged this share of its steps."""

        def is_there() -> bool:
            if self.starts >= starts and self.steps >= int(share * self.total):
                return True
            if is_finished(self.folder):
                raise SandboxError(f"{self.folder.name} was finished too early")
            return False

        wait_for(is_there, f"{share:.0%} of the steps after start {starts}", PATIENCE_S)

    def wait_for_start(self, starts: int) -> None:
        """Wait until the run was started so often."""
        self.wait_until(starts)
        self.say(f"start {self.starts} of the run, on {self.cluster.node(self.job)}")

    def wait_for_end(self) -> str:
        """Wait until Slurm says that the job is over, and return its state."""
        state = self.cluster.wait_for_end(self.job)
        self.seconds = time.monotonic() - self.started
        say(f"job {self.job}: {state} after {self.seconds:.0f} s")
        return state


def type_in(cluster: Sandbox, *words: str) -> str:
    """Type a command of ``launch/`` that must succeed, and return what it prints."""
    return cluster.run(sys.executable, str(ROOT / words[0]), *words[1:], timeout_s=PATIENCE_S)


def record(folder: Path) -> dict[str, Any]:
    """The job that was given a run."""
    found: dict[str, Any] = json.loads((folder / "job.json").read_text())
    return found


def following(folder: Path) -> dict[str, Any]:
    """The job that waits for the one of a run, of which there is one."""
    records = (record(path.parent) for path in folder.parents[1].glob("*/*/job.json"))
    (found,) = {one["job_id"]: one for one in records if one["after"]}.values()
    assert found["after"] == record(folder)["job_id"]
    return found


def is_finished(folder: Path) -> bool:
    """True if a run has its final metrics."""
    return (folder / "metrics.json").exists()
