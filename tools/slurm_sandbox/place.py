"""Where a sandbox may be: whose folder, one verb at a time in it, and which ports."""

import fcntl
import os
import socket
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO

from slurm_sandbox import processes
from slurm_sandbox.layout import FOLDER_VARIABLE, MARKER, Sandbox, SandboxError

MAX_PATH = 60
"""Characters of the folder: a socket below it has at most 108, and Slurm's names are long."""

LOCK_S = 300
PORTS = range(16_832, 32_000, 64)
"""Where blocks of ports begin, below those that systems lend to clients."""


def need_root() -> None:
    if os.geteuid() != 0:
        raise SandboxError("a sandbox makes namespaces and nodes and needs root.", status=2)


def check_folder(folder: Path) -> None:
    text = str(folder)
    if not all(letter.isascii() and (letter.isalnum() or letter in "._-/") for letter in text):
        raise SandboxError(
            f"{folder} has characters that Slurm's files do not take; set {FOLDER_VARIABLE} to a "
            "path of letters, digits and ._-.",
            status=2,
        )
    if len(text) > MAX_PATH:
        raise SandboxError(
            f"{folder} is too long for the sockets below it ({MAX_PATH} characters at most); set "
            f"{FOLDER_VARIABLE} to a shorter path.",
            status=2,
        )
    if not folder.exists():
        return
    if not folder.is_dir() or folder.stat().st_uid != os.geteuid():
        raise SandboxError(
            f"{folder} is not a folder of this user; set {FOLDER_VARIABLE} to another.", status=2
        )
    if not (folder / MARKER).exists() and any(folder.iterdir()):
        raise SandboxError(
            f"{folder} has something else in it; set {FOLDER_VARIABLE} to another.", status=2
        )


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """One verb at a time. The daemons do not inherit the lock."""
    with open(folder / MARKER, "a") as file:
        if not processes.until(lambda: _try_lock(file), LOCK_S):
            raise SandboxError(
                f"another slurm-sandbox has been at work in {folder} for {LOCK_S} s; wait for it, "
                "or end it."
            )
        if not (folder / MARKER).exists():
            raise SandboxError(f"{folder} was deleted meanwhile; type the command again.")
        yield


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def free_port(sandbox: Sandbox) -> int:
    """The first port of a free block: the earlier one, else one that depends on the folder."""
    first = zlib.crc32(str(sandbox.folder).encode()) % len(PORTS)
    candidates = [*PORTS[first:], *PORTS[:first]]
    if sandbox.options.port:
        candidates.insert(0, sandbox.options.port)
    for port in candidates:
        block = Sandbox(sandbox.folder, replace(sandbox.options, port=port)).ports
        if all(map(_is_free, block)):
            return port
    raise SandboxError("no block of free ports was found between 16832 and 32000.")


def _is_free(port: int) -> bool:
    with closing(socket.socket()) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind(("", port))
        except OSError:
            return False
    return True
