"""The verbs: start, stop, status, and killing one daemon to see what happens."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from slurm_sandbox import configuration, daemons, packages, processes
from slurm_sandbox.clients import ask, nodes_up, wait_for_nodes
from slurm_sandbox.layout import FOLDER_VARIABLE, MARKER, Options, Sandbox, SandboxError, load
from slurm_sandbox.place import check_folder, free_port, lock, need_root


def start(folder: Path, wanted: Mapping[str, Any]) -> Sandbox:
    """Start what does not run: a whole cluster, or the daemons that somebody killed.

    Args:
        folder: of the sandbox; made if absent.
        wanted: fields of :class:`Options`; those left out stay as they were.

    Raises:
        SandboxError: if Slurm is not installed, the folder is unfit, a cluster with other options
            runs, or a daemon does not come up.
    """
    packages.check(_options(load(folder), wanted).accounting)
    need_root()
    check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with lock(folder):
        earlier = load(folder)
        sandbox = Sandbox(folder, _options(earlier, wanted))
        if earlier is None or not processes.running(earlier):
            sandbox = _configure(sandbox, choose_port="port" not in wanted)
        elif sandbox != earlier:
            raise SandboxError(
                f"a sandbox with other options runs in {folder} ({earlier.options}); stop it first."
            )
        for daemon in sandbox.daemons:
            if processes.pid_of(sandbox, daemon) is None:
                daemons.start(sandbox, daemon)
        wait_for_nodes(sandbox)
    return sandbox


def _options(earlier: Sandbox | None, wanted: Mapping[str, Any]) -> Options:
    return replace(earlier.options if earlier else Options(), **wanted)


def _configure(sandbox: Sandbox, choose_port: bool) -> Sandbox:
    # What a crashed cluster left is known by its hosts file, which is about to be replaced.
    processes.kill(processes.on_nodes(sandbox))
    if choose_port:
        sandbox = Sandbox(sandbox.folder, replace(sandbox.options, port=free_port(sandbox)))
    configuration.write_all(sandbox)
    sandbox.save()
    return sandbox


def stop(folder: Path, purge: bool = False) -> bool:
    """End the jobs, then the daemons; with ``purge`` delete the folder. False if there is none."""
    if not (folder / MARKER).exists():
        return False
    need_root()
    with lock(folder):
        sandbox = load(folder)
        if sandbox:
            _end_jobs(sandbox)
            for daemon, pid in reversed(processes.running(sandbox).items()):
                processes.end(daemon, pid)
                sandbox.pid_file(daemon).unlink(missing_ok=True)
            processes.kill(processes.on_nodes(sandbox))
        if purge:
            shutil.rmtree(folder)
    return True


def _end_jobs(sandbox: Sandbox) -> None:
    """Cancel the jobs, and kill what is left of them: it would outlive the daemons."""
    if processes.pid_of(sandbox, "slurmctld") is not None:
        jobs = set(ask(sandbox, "squeue", "-h", "-o", "%A").stdout.split())
        if jobs:
            ask(sandbox, "scancel", *jobs)
            processes.until(lambda: not processes.steps(sandbox), 3)
    processes.kill(processes.steps(sandbox))


def status(folder: Path) -> bool:
    """Print the daemons, nodes and jobs; True if all daemons and nodes are up."""
    sandbox = existing(folder)
    pids = processes.running(sandbox)
    for daemon in sandbox.daemons:
        print(f"{daemon}: " + (f"running ({pids[daemon]})" if daemon in pids else "not running"))
    if len(pids) < len(sandbox.daemons):
        return False
    for command in (("sinfo", "-N", "-l"), ("squeue",)):
        print(ask(sandbox, *command).stdout, end="")
    return nodes_up(sandbox)


def pid(folder: Path, daemon: str) -> int:
    """The process id of a daemon.

    Raises:
        SandboxError: if there is no such daemon, or it does not run.
    """
    sandbox = existing(folder)
    if daemon not in sandbox.daemons:
        raise SandboxError(
            f"there is no daemon {daemon!r} in {folder}; it has {', '.join(sandbox.daemons)}.",
            status=2,
        )
    found = processes.pid_of(sandbox, daemon)
    if found is None:
        raise SandboxError(f"{daemon} does not run in {folder}; start brings it back.")
    return found


def kill(folder: Path, daemon: str) -> None:
    """SIGKILL one daemon, as a fault would; ``start`` brings it back."""
    need_root()
    processes.kill([pid(folder, daemon)])


def existing(folder: Path) -> Sandbox:
    """The sandbox in ``folder``.

    Raises:
        SandboxError: if there is none.
    """
    sandbox = load(folder)
    if sandbox is None:
        raise SandboxError(f"there is no sandbox in {folder}; start one, or set {FOLDER_VARIABLE}.")
    return sandbox
