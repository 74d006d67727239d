"""Starting each daemon, and waiting until it answers."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from slurm_sandbox.clients import WAIT_S, answers, environment
from slurm_sandbox.layout import Sandbox, SandboxError
from slurm_sandbox.packages import find
from slurm_sandbox.processes import pid_of, until

# A node is a host name and an /etc/hosts of its own, in namespaces that its jobs inherit.
ON_A_NODE = 'mount --bind "$1" /etc/hosts && hostname "$2" && shift 2 && exec "$@"'


def start(sandbox: Sandbox, daemon: str) -> None:
    """Start one daemon.

    Raises:
        SandboxError: if it does not answer after a minute; with its last words.
    """
    sandbox.pid_file(daemon).unlink(missing_ok=True)
    program, _, node = daemon.partition(".")
    if program == "slurmd":
        _slurmd(sandbox, daemon, node)
    else:
        STARTS[program](sandbox)


def _munged(sandbox: Sandbox) -> None:
    folder = sandbox.folder
    sandbox.munge_socket.unlink(missing_ok=True)
    _run(
        sandbox,
        "munged",
        *(find("munged"), "--force"),
        f"--key-file={folder}/secret/munge.key",
        f"--seed-file={folder}/secret/munged.seed",
        f"--socket={sandbox.munge_socket}",
        f"--pid-file={sandbox.pid_file('munged')}",
        f"--log-file={folder}/log/munged.log",
    )
    encode = ("munge", "-n", "-S", str(sandbox.munge_socket))
    _wait(sandbox, "munged", lambda: answers(sandbox, *encode))


def _mariadbd(sandbox: Sandbox) -> None:
    _make_database(sandbox)
    sandbox.database_socket.unlink(missing_ok=True)
    with open(_log(sandbox, "mariadbd"), "a") as log:
        subprocess.Popen(
            [
                *(find("mariadbd"), "--no-defaults", "--user=root"),
                f"--datadir={sandbox.folder}/db",
                f"--socket={sandbox.database_socket}",
                f"--pid-file={sandbox.pid_file('mariadbd')}",
                *("--skip-networking", "--skip-log-bin", "--innodb-buffer-pool-size=64M"),
                *("--innodb-log-file-size=16M", "--innodb-lock-wait-timeout=900"),
                "--innodb-flush-log-at-trx-commit=0",
            ],
            env=environment(sandbox),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    _wait(sandbox, "mariadbd", sandbox.database_socket.exists)


def _make_database(sandbox: Sandbox) -> None:
    if (sandbox.folder / "db").exists():
        return
    unfinished = sandbox.folder / "db.new"
    shutil.rmtree(unfinished, ignore_errors=True)
    _run(
        sandbox,
        "mariadbd",
        *(find("mariadb-install-db"), "--no-defaults", "--user=root"),
        f"--datadir={unfinished}",
        *("--skip-test-db", "--skip-name-resolve", "--auth-root-authentication-method=normal"),
    )
    unfinished.rename(sandbox.folder / "db")


def _slurmdbd(sandbox: Sandbox) -> None:
    _run(
        sandbox,
        "slurmdbd",
        f"{sandbox.folder}/slurmdbd",  # it takes no folder: only its name can say whose it is
        executable=find("slurmdbd"),
        environ={"MYSQL_UNIX_PORT": str(sandbox.database_socket)},
    )
    _wait(sandbox, "slurmdbd", lambda: answers(sandbox, "sacctmgr", "-n", "list", "cluster"))


def _slurmctld(sandbox: Sandbox) -> None:
    _run(sandbox, "slurmctld", find("slurmctld"), "-f", str(sandbox.conf))
    _wait(sandbox, "slurmctld", lambda: answers(sandbox, "scontrol", "ping"))


def _slurmd(sandbox: Sandbox, daemon: str, node: str) -> None:
    _run(
        sandbox,
        daemon,
        *("unshare", "--mount", "--uts", "--propagation", "slave"),
        *("sh", "-c", ON_A_NODE, "sh", str(sandbox.hosts), node),
        *(find("slurmd"), "-f", str(sandbox.conf), "-N", node),
    )
    _wait(sandbox, daemon, lambda: True)


STARTS: dict[str, Callable[[Sandbox], None]] = {
    "munged": _munged,
    "mariadbd": _mariadbd,
    "slurmdbd": _slurmdbd,
    "slurmctld": _slurmctld,
}


def _run(
    sandbox: Sandbox,
    daemon: str,
    *command: str,
    executable: str | None = None,
    environ: dict[str, str] | None = None,
) -> None:
    """Run what ends, or goes on in the background by itself; its output has a log of its own."""
    with open(_log(sandbox, daemon), "a") as log:
        status = subprocess.run(
            command,
            executable=executable,
            env=environment(sandbox) | (environ or {}),
            cwd=sandbox.folder / "log",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        ).returncode
    if status:
        raise _failure(sandbox, daemon, "did not start")


def _wait(sandbox: Sandbox, daemon: str, ready: Callable[[], bool]) -> None:
    if not until(lambda: pid_of(sandbox, daemon) is not None and ready(), WAIT_S):
        raise _failure(sandbox, daemon, f"did not answer in {WAIT_S} s")


def _log(sandbox: Sandbox, daemon: str) -> Path:
    return sandbox.folder / "log" / f"{daemon}.start.log"


def _failure(sandbox: Sandbox, daemon: str, what: str) -> SandboxError:
    words = _log(sandbox, daemon).read_text(errors="replace").strip().splitlines() or ["nothing"]
    return SandboxError(f"{daemon} {what}; see {sandbox.folder}/log; its last words: {words[-1]}")
