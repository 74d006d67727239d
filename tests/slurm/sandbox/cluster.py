"""A private Slurm: starting and ending it, asking it, and hurting it."""

import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.slurm.sandbox import configuration, daemons
from tests.slurm.sandbox.layout import (
    KILL_S,
    Layout,
    SandboxError,
    free_port,
    kill,
    lives,
    wait_for,
)
from tests.slurm.sandbox.packages import obstacle

LIVE = set("PENDING RUNNING COMPLETING CONFIGURING REQUEUED REQUEUE_HOLD SUSPENDED STOPPED "
           "SIGNALING STAGE_OUT RESIZING SPECIAL_EXIT".split())  # fmt: skip
UP = {"idle", "mixed", "allocated", "completing", "planned"}  # nodes that answer and take jobs


@dataclass
class Sandbox(Layout):
    """One cluster. ``SLURM_CONF`` of this process need not name it."""

    def start(self) -> None:
        """Start what does not run: the whole, or the daemons that somebody killed."""
        if reason := obstacle():
            raise SandboxError(f"{reason}.")
        earlier = self.saved()
        if earlier is None:
            self._create()
        else:
            self.port = earlier.port
        for daemon in self.daemons:
            if self.process(daemon) is None:
                daemons.start(self, daemon)
        wait_for(self._nodes_are_up, f"answer of all nodes (see {self.folder}/log)")

    def _create(self) -> None:
        # Slurm's files take no other characters, and a socket's path at most 108 of them.
        if not re.fullmatch(r"[\w./-]{1,60}", str(self.folder), re.ASCII):
            raise SandboxError(
                f"{self.folder} is no folder for Slurm's files and sockets: name one of at most 60 "
                "letters, digits and ._-."
            )
        if self.folder.exists() and any(self.folder.iterdir()):
            raise SandboxError(f"{self.folder} has something else in it; name another folder.")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port(self.nodes + 2)
        configuration.write(self)
        self.save()

    def stop(self) -> None:
        """End all daemons and jobs, and delete the folder; nothing if there is no sandbox."""
        if self.saved() is None:
            return
        processes = (self.process(daemon) for daemon in reversed(self.daemons))
        kill(process for process in processes if process)
        while left := self.on_nodes():
            kill(left)
        shutil.rmtree(self.folder)

    def end(self, daemon: str, signal_: signal.Signals = signal.SIGKILL) -> None:
        """Send a daemon such as ``slurmd.n1`` a signal, and wait for its end."""
        process = self.process(daemon)
        if process is None:
            raise SandboxError(
                f"{daemon} does not run in {self.folder}; its daemons are "
                f"{', '.join(self.daemons)}."
            )
        process.send_signal(signal_)
        wait_for(lambda: not lives(process), f"end of {daemon}", KILL_S)

    def call(
        self, *command: str, timeout_s: float = 60, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run any command on the cluster, which may fail."""
        return daemons.call(self, *command, timeout_s=timeout_s, **environment)

    def run(self, *command: str, timeout_s: float = 60) -> str:
        """Run a command that must succeed, and return what it prints."""
        done = self.call(*command, timeout_s=timeout_s)
        if done.returncode:
            raise SandboxError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
        return done.stdout

    def submit(self, *words: str) -> str:
        """Submit with ``sbatch``, and return the job's id."""
        return self.run("sbatch", "--parsable", *words).strip().split(";")[0]

    def node_states(self) -> dict[str, str]:
        """The state of each node; empty while the controller does not answer."""
        lines = self.call("sinfo", "-h", "-N", "-p", "main", "-o", "%N %T").stdout.splitlines()
        # - and + are marks: planned for a job, one job completing beside others
        return {name: state.rstrip("-+") for name, state in (line.split() for line in lines)}

    def is_up(self) -> bool:
        """True if every daemon runs and every node answers."""
        return all(map(self.process, self.daemons)) and self._nodes_are_up()

    def _nodes_are_up(self) -> bool:
        states = self.node_states()
        return states.keys() == set(self.node_names) and set(states.values()) <= UP

    def shown(self, job: str) -> dict[str, str]:
        """The fields of ``scontrol show job``; empty once Slurm has forgotten the job."""
        words = self.call("scontrol", "-o", "show", "job", job).stdout
        return dict(re.findall(r"(?:^|\s)([A-Za-z]+)=(\S*)", words))

    def state(self, job: str) -> str:
        """The state of a job, such as ``RUNNING``; empty once the controller has forgotten it."""
        return self.shown(job).get("JobState", "")

    def wait_for_end(self, job: str, timeout_s: float = 900) -> str:
        """Wait until a job is over, and return its state."""
        found = ""

        def is_over() -> bool:
            nonlocal found
            found = self.state(job)
            return bool(found) and found not in LIVE

        wait_for(is_over, f"end of job {job}", timeout_s)
        return found

    def requeues(self, job: str) -> int:
        """The number of times that Slurm has started a job anew."""
        return int(self.shown(job).get("Restarts", 0))

    def node(self, job: str) -> str:
        """The first node of a running job."""
        nodes = self.shown(job).get("NodeList", "")
        return self.run("scontrol", "show", "hostnames", nodes).split()[0]

    def ranks(self, job: str) -> dict[int, psutil.Process]:
        """The processes of a job's ranks, on whichever node of this machine they are."""
        found = {}
        for process in self.on_nodes():
            with suppress(psutil.Error, KeyError):  # it is gone, or no task of a step
                names = process.environ()
                if names["SLURM_JOB_ID"] == job and "submitit.core._submit" in process.cmdline():
                    found[process.pid] = int(names["SLURM_PROCID"]), process
        # Workers of data loaders have their rank's command line and environment.
        return {rank: one for rank, one in found.values() if one.ppid() not in found}

    def cancel_all(self) -> None:
        """Cancel every job and wait until all nodes are idle."""
        if jobs := set(self.run("squeue", "-h", "-o", "%A").split()):
            self.run("scancel", *jobs)
        wait_for(lambda: set(self.node_states().values()) == {"idle"}, "idle nodes")


@contextmanager
def started(**options: Any) -> Iterator[Sandbox]:
    """A cluster of its own, which is gone after the block whatever happens in it."""
    with tempfile.TemporaryDirectory(prefix="slurm-", dir="/tmp") as folder:
        sandbox = Sandbox(Path(folder) / "c", **options)
        try:
            sandbox.start()
            yield sandbox
        finally:
            sandbox.stop()
