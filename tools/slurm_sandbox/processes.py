"""Which processes are a sandbox's, and ending them: by process id, never by name."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from slurm_sandbox.layout import Sandbox, SandboxError

POLL_S = 0.1
TERM_S = 20
"""How long a daemon may take to end."""


def command_line(pid: int) -> str:
    """The arguments of a process; empty once it is gone or nothing but a zombie."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    return b" ".join(words).strip().decode(errors="replace")


def pid_of(sandbox: Sandbox, daemon: str) -> int | None:
    """The daemon's process id, None if it does not run.

    A pid file may be stale and its number somebody else's by now: the process counts only if its
    command line names the sandbox's folder.
    """
    try:
        pid = int(sandbox.pid_file(daemon).read_text())
    except (OSError, ValueError):
        return None
    return pid if f"{sandbox.folder}/" in command_line(pid) else None


def running(sandbox: Sandbox) -> dict[str, int]:
    """The daemons that run, and their process ids."""
    found = ((daemon, pid_of(sandbox, daemon)) for daemon in sandbox.daemons)
    return {daemon: pid for daemon, pid in found if pid is not None}


def on_nodes(sandbox: Sandbox) -> list[int]:
    """All that runs on the nodes, however detached: it sees the sandbox's hosts file."""
    try:
        ours = sandbox.hosts.stat()
    except FileNotFoundError:
        return []
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            same = os.path.samestat(ours, (entry / "root/etc/hosts").stat())
        except OSError:  # gone meanwhile, or a thread of the kernel
            continue
        if same and command_line(int(entry.name)):
            found.append(int(entry.name))
    return found


def steps(sandbox: Sandbox) -> list[int]:
    """What jobs run on the nodes: everything there but slurmd, which they may outlive."""
    daemons = {pid_of(sandbox, daemon) for daemon in sandbox.daemons}
    return [pid for pid in on_nodes(sandbox) if pid not in daemons]


def kill(pids: Iterable[int]) -> None:
    """SIGKILL each process that is still there, and wait until it is gone."""
    pids = list(pids)
    for pid in pids:
        _send(pid, signal.SIGKILL)
    if not until(lambda: not any(map(command_line, pids)), TERM_S):
        left = ", ".join(str(pid) for pid in pids if command_line(pid))
        raise SandboxError(f"process {left} survives SIGKILL; look at what it waits for.")


def end(daemon: str, pid: int) -> None:
    """SIGTERM a daemon, and SIGKILL it if it does not go."""
    _send(pid, signal.SIGTERM)
    if not until(lambda: not command_line(pid), TERM_S):
        print(f"slurm-sandbox: {daemon} ({pid}) ignored SIGTERM; killing it", file=sys.stderr)
        kill([pid])


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until ``condition`` holds; False if it did not in that time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True
