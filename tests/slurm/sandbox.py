"""A private Slurm for tests: the daemons of tools/slurm-sandbox, and how to talk to them."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from slurm_sandbox import packages
from slurm_sandbox.layout import FOLDER_VARIABLE, PORT_VARIABLE

TOOL = Path(__file__).resolve().parents[2] / "tools" / "slurm-sandbox"
POLL_S = 0.2


@dataclass(frozen=True)
class Sandbox:
    """One cluster; ``SLURM_CONF`` need not name it.

    Attributes:
        folder: where everything of it is.
    """

    folder: Path

    def environment(self) -> dict[str, str]:
        """For commands that are to reach this cluster."""
        return os.environ | {
            FOLDER_VARIABLE: str(self.folder),
            PORT_VARIABLE: "",
            "SLURM_CONF": str(self.folder / "slurm.conf"),
            "PATH": packages.search_path(),
        }

    def call(
        self, *command: str, timeout_s: float = 60, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run any command there; whether it succeeded is for the caller to look at."""
        return subprocess.run(
            command,
            env=self.environment(),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )

    def run(self, *command: str, timeout_s: float = 60, cwd: Path | None = None) -> str:
        """Run a command that must succeed; what it printed."""
        result = self.call(*command, timeout_s=timeout_s, cwd=cwd)
        assert result.returncode == 0, f"{' '.join(command)}: {result.stdout}{result.stderr}"
        return result.stdout

    def tool(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a verb of tools/slurm-sandbox."""
        return self.call(sys.executable, str(TOOL), *arguments, timeout_s=400)

    def start(self, *arguments: str) -> str:
        """Start what does not run; the line that it printed."""
        result = self.tool("start", *arguments)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def kill(self, daemon: str) -> None:
        """SIGKILL a daemon such as ``slurmctld`` or ``slurmd.n1``."""
        result = self.tool("kill", daemon)
        assert result.returncode == 0, result.stderr

    def pid(self, daemon: str) -> int | None:
        """The process id of a daemon, None if it does not run."""
        result = self.tool("pid", daemon)
        return int(result.stdout) if result.returncode == 0 else None

    def is_up(self) -> bool:
        """True if every daemon runs and every node answers."""
        return self.tool("status").returncode == 0

    def states(self) -> dict[str, str]:
        """Slurm's word for the state of each node."""
        lines = self.run("sinfo", "-h", "-N", "-p", "main", "-o", "%N %T").splitlines()
        return {name: state for name, state in (line.split() for line in lines)}

    def submit(self, *arguments: str, cwd: Path | None = None) -> str:
        """Submit with ``sbatch``; the job's id."""
        return self.run("sbatch", "--parsable", *arguments, cwd=cwd).strip().split(";")[0]

    def state(self, job: str) -> str:
        """A job's state as the controller has it; empty once it has forgotten the job."""
        words = self.call("scontrol", "show", "job", job).stdout.split()
        return next((word.split("=")[1] for word in words if word.startswith("JobState=")), "")

    def wait_idle(self, timeout_s: float = 60) -> None:
        """Cancel every job and wait until all nodes are idle, for the next test."""
        jobs = set(self.run("squeue", "-h", "-o", "%A").split())
        if jobs:
            self.run("scancel", *jobs)
        wait_for(lambda: set(self.states().values()) == {"idle"}, "idle nodes", timeout_s)

    def processes(self) -> dict[int, str]:
        """Command lines of all daemons, and of what jobs left however detached, by process id."""
        mark = f"SLURM_CONF={self.folder}/slurm.conf".encode()
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # gone meanwhile
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    words = (entry / "cmdline").read_bytes().split(b"\0")
                    found[int(entry.name)] = b" ".join(words).decode().strip()
        return found

    def stop(self) -> None:
        """End everything and delete the folder."""
        result = self.tool("stop", "--purge")
        assert result.returncode == 0, result.stderr


def wait_for(condition: Callable[[], object], what: str, timeout_s: float = 30) -> None:
    """Wait until ``condition`` holds; fail if it does not."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"no {what} in {timeout_s} s"
        time.sleep(POLL_S)


@contextmanager
def started(*arguments: str) -> Iterator[Sandbox]:
    """A cluster of its own, which is gone after the block whatever happened in it."""
    # Not pytest's folder: the sockets below it would have too long a path.
    with TemporaryDirectory(prefix="lewel-slurm-", dir="/tmp", ignore_cleanup_errors=True) as root:
        sandbox = Sandbox(Path(root) / "c")
        try:
            sandbox.start(*arguments)
            yield sandbox
        finally:
            sandbox.stop()
