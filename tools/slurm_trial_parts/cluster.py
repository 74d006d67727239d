"""A private Slurm of tools/slurm-sandbox: its commands, and its jobs' processes."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from slurm_sandbox import packages
from slurm_sandbox.layout import FOLDER_VARIABLE, PORT_VARIABLE

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "slurm-sandbox"
FOREIGN = ("SLURM", "SBATCH", "SQUEUE", "LEWEL_SLURM", "SUBMITIT")
POLL_S = 0.2


@dataclass(frozen=True)
class Cluster:
    """A sandbox that runs, or will.

    Attributes:
        folder: the sandbox's own.
    """

    folder: Path

    def environment(self) -> dict[str, str]:
        """For commands that are to reach this cluster and to know no other's settings."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        return kept | {
            FOLDER_VARIABLE: str(self.folder),
            PORT_VARIABLE: "",
            "SLURM_CONF": str(self.folder / "slurm.conf"),
            "PATH": packages.search_path(),
        }

    def call(self, *command: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        """Run any command there; whether it succeeded is for the caller to look at."""
        return subprocess.run(
            command,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )

    def run(self, *command: str, timeout_s: float = 120) -> str:
        """Run a command that must succeed; what it printed.

        Raises:
            RuntimeError: if it fails, with what it said.
        """
        done = self.call(*command, timeout_s=timeout_s)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
        return done.stdout

    def tool(self, *words: str) -> str:
        """Run a verb of tools/slurm-sandbox."""
        return self.run(sys.executable, str(TOOL), *words, timeout_s=400)

    def batch(self, script: str, *options: str) -> str:
        """Submit a shell script that prints nothing; the job's id."""
        words = ("sbatch", "--parsable", "-o", "/dev/null", *options, "--wrap", script)
        return self.run(*words).strip().split(";")[0]

    def shown(self, job: str) -> dict[str, str]:
        """What ``scontrol show job`` says; empty once Slurm has forgotten the job."""
        words = self.call("scontrol", "-o", "show", "job", job).stdout
        return dict(re.findall(r"(?:^|\s)([A-Za-z]+)=(\S*)", words))

    def requeues(self, job: str) -> int:
        """How often Slurm has started a job anew."""
        return int(self.shown(job).get("Restarts", 0))

    def node(self, job: str) -> str:
        """The first node of a running job."""
        nodes = self.shown(job).get("NodeList", "")
        return self.run("scontrol", "show", "hostnames", nodes).split()[0]

    def cancel_all(self) -> None:
        """End all jobs that there are."""
        jobs = set(self.call("squeue", "-h", "-o", "%A").stdout.split())
        if jobs:
            self.call("scancel", *jobs)

    def end_daemon(self, daemon: str) -> None:
        """SIGTERM a daemon, and wait until it is gone; ``tool("start")`` brings it back."""
        pid = int(self.tool("pid", daemon))
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda: not lives(pid), f"end of {daemon}")


def wait_for(condition: Callable[[], object], what: str, timeout_s: float = 120) -> None:
    """Wait until ``condition`` holds.

    Raises:
        RuntimeError: if it does not in that time.
    """
    until = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > until:
            raise RuntimeError(f"no {what} in {timeout_s:.0f} s")
        time.sleep(POLL_S)


def ranks(job: str) -> dict[int, int]:
    """The process ids of a job's ranks, on whichever node of this machine they are."""
    found: dict[int, tuple[int, int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, KeyError):  # gone meanwhile, or no task of a step
            words = (entry / "environ").read_bytes().split(b"\0")
            names = dict(word.split(b"=", 1) for word in words if b"=" in word)
            pid = int(entry.name)
            if names[b"SLURM_JOB_ID"] == job.encode() and b"submitit.core._submit" in _words(pid):
                parent = int((entry / "stat").read_text().rsplit(")")[-1].split()[1])
                found[pid] = int(names[b"SLURM_PROCID"]), parent
    # Data loaders' workers have their rank's command line and environment.
    return {rank: pid for pid, (rank, parent) in found.items() if parent not in found}


def lives(pid: int) -> bool:
    """Whether a process is there, and more than a zombie."""
    return bool(_words(pid))


def _words(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
