"""The options of a sandbox, its one folder, and its processes."""

import json
import os
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import psutil

from common.errors import UserError

POLL_S = 0.2
KILL_S = 20  # for a process to end
PORTS = range(16_384, 32_000, 64)  # first ports of blocks, below those that systems lend to clients


class SandboxError(UserError):
    """A cluster, or a job on it, that is not as it should be."""


@dataclass
class Layout:
    """The options and the files of a sandbox.

    Attributes:
        folder: everything that the sandbox reads and writes.
        nodes: virtual nodes, ``n1``, ``n2``, ...
        gpus_per_node: stand-ins, which exist for Slurm only.
        cpus_per_node: as Slurm counts them; may exceed what the machine has.
        accounting: run slurmdbd and a database, so that ``sacct`` answers.
        port: the first of its TCP ports, which follow each other: the controller's, the database
            daemon's, the nodes'. 0 until it has started.
    """

    folder: Path
    nodes: int = 2
    gpus_per_node: int = 2
    cpus_per_node: int = 8
    accounting: bool = True
    port: int = 0

    @property
    def conf(self) -> Path:
        """The value of ``SLURM_CONF``."""
        return self.folder / "slurm.conf"

    @property
    def hosts(self) -> Path:
        """The nodes' ``/etc/hosts``, by which their processes are recognised."""
        return self.folder / "hosts"

    @property
    def munge_socket(self) -> Path:
        """The socket of munged."""
        return self.folder / "run" / "munge.sock"

    @property
    def database_socket(self) -> Path:
        """The socket of the database, in a folder that only root can enter."""
        return self.folder / "secret" / "mysql.sock"

    @property
    def node_names(self) -> list[str]:
        """``n1``, ``n2``, ..."""
        return [f"n{number}" for number in range(1, self.nodes + 1)]

    @property
    def daemons(self) -> list[str]:
        """Names of the daemons, in the order in which they must start."""
        accounting = ["mariadbd", "slurmdbd"] if self.accounting else []
        return ["munged", *accounting, "slurmctld", *(f"slurmd.{name}" for name in self.node_names)]

    def pid_file(self, daemon: str) -> Path:
        """The file with a daemon's process id."""
        return self.folder / "run" / f"{daemon}.pid"

    def save(self) -> None:
        """Keep the options in the folder, which they mark as a sandbox's."""
        options = asdict(self) | {"folder": None}
        (self.folder / "options.json").write_text(json.dumps(options, indent=2) + "\n")

    def saved(self) -> Self | None:
        """The sandbox that is in the folder; None if there is none."""
        try:
            options = json.loads((self.folder / "options.json").read_text())
        except FileNotFoundError:
            return None
        return type(self)(**options | {"folder": self.folder})

    def process(self, daemon: str) -> psutil.Process | None:
        """The process of a daemon; None if it does not run.

        A pid file may be stale and its number another process's.
        """
        with suppress(OSError, ValueError, psutil.Error):
            found = psutil.Process(int(self.pid_file(daemon).read_text()))
            ours = found.environ().get("SLURM_CONF") == str(self.conf)
            if ours and found.name() == daemon.partition(".")[0] and lives(found):
                return found
        return None

    def on_nodes(self) -> list[psutil.Process]:
        """All processes on the nodes, however detached: they see the sandbox's hosts file."""
        found = []
        for process in psutil.process_iter() if self.hosts.exists() else ():
            with suppress(OSError):  # it is gone, or a thread of the kernel
                hosts = Path(f"/proc/{process.pid}/root/etc/hosts")
                if hosts.samefile(self.hosts) and lives(process):
                    found.append(process)
        return found


def free_port(count: int) -> int:
    """The first of ``count`` free ports that follow each other."""
    own = os.getpid() % len(PORTS)  # sandboxes that start at the same time look elsewhere
    for first in (*PORTS[own:], *PORTS[:own]):
        if all(map(_is_free, range(first, first + count))):
            return first
    raise SandboxError(f"no block of free ports was found from {PORTS.start} to {PORTS.stop}.")


def _is_free(port: int) -> bool:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):
            server.bind(("", port))
            return True
    return False


def lives(process: psutil.Process) -> bool:
    """False for a process that is gone, or a zombie, which a container may never collect."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def kill(processes: Iterable[psutil.Process]) -> None:
    """SIGKILL each process that is still there, and wait until it is gone."""
    processes = list(processes)
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    wait_for(lambda: not any(map(lives, processes)), "end of what was killed", KILL_S)


def wait_for(condition: Callable[[], object], what: str, timeout_s: float = 60) -> None:
    """Wait until ``condition`` holds; a SandboxError if it does not in that time."""
    until = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > until:
            raise SandboxError(f"no {what} in {timeout_s:.0f} s")
        time.sleep(POLL_S)
