"""Starting each daemon, and waiting until it answers."""

import os
import shutil
import subprocess

from tests.slurm.sandbox.layout import Layout, SandboxError, wait_for
from tests.slurm.sandbox.packages import PATH

CLIENT_S = 20  # for a client, which hangs while the controller is down

FOREIGN = ("SLURM", "SBATCH", "SRUN", "SALLOC", "SINFO", "SQUEUE", "SACCT", "SCANCEL", "MUNGE",
           "SUBMITIT", "LEWEL_SLURM")  # fmt: skip
"""First letters of variables that may speak of another cluster, or of a job."""

# A node is a host name and an /etc/hosts of its own, in namespaces that its jobs inherit.
ON_A_NODE = 'mount --bind "$1" /etc/hosts && hostname "$2" && shift 2 && exec "$@"'

_started: list[subprocess.Popen[bytes]] = []  # kept: one that is forgotten while it runs warns


def environment(sandbox: Layout) -> dict[str, str]:
    """The variables of clients and daemons, without those of any other cluster."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    own = {"PATH": PATH, "SLURM_CONF": str(sandbox.conf)}
    return kept | own | {"MYSQL_UNIX_PORT": str(sandbox.database_socket)}


def call(
    sandbox: Layout, *command: str, timeout_s: float = CLIENT_S, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run a command on the cluster; one that takes too long counts as failed."""
    try:
        return subprocess.run(
            command,
            env=environment(sandbox) | more,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"no answer in {timeout_s:.0f} s")


def start(sandbox: Layout, daemon: str) -> None:
    """Start one daemon; if it ends or does not answer, its last words are in the error."""
    if daemon == "mariadbd":
        _make_database(sandbox)
    path = sandbox.folder / "log" / f"{daemon}.start.log"
    with path.open("ab") as log:
        process = subprocess.Popen(
            command(sandbox, daemon),
            env=environment(sandbox),
            cwd=path.parent,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    _started.append(process)
    sandbox.pid_file(daemon).write_text(f"{process.pid}\n")

    def answers() -> bool:
        if process.poll() is not None:
            raise SandboxError("it ended")
        return sandbox.process(daemon) is not None and ready(sandbox, daemon)

    try:
        wait_for(answers, "answer")
    except SandboxError as error:
        words = path.read_text(errors="replace").strip().splitlines() or ["none"]
        raise SandboxError(
            f"{daemon} did not start ({error}); see {path.parent}; its last words: {words[-1]}"
        ) from error


def command(sandbox: Layout, daemon: str) -> list[str]:
    """The command of a daemon, which stays in the foreground of a session of its own."""
    folder, (program, _, node) = sandbox.folder, daemon.partition(".")
    match program:
        case "munged":
            return [
                "munged", "--foreground", "--force", f"--socket={sandbox.munge_socket}",
                f"--key-file={folder}/secret/munge.key",
                f"--seed-file={folder}/secret/munged.seed",
                f"--pid-file={folder}/run/munged.own.pid",
            ]  # fmt: skip
        case "mariadbd":
            return [
                "mariadbd", "--no-defaults", "--user=root", f"--datadir={folder}/db",
                f"--socket={sandbox.database_socket}", f"--pid-file={folder}/run/mariadbd.own.pid",
                "--skip-networking", "--skip-log-bin", "--innodb-buffer-pool-size=64M",
                "--innodb-log-file-size=16M", "--innodb-lock-wait-timeout=900",
                "--innodb-flush-log-at-trx-commit=0",
            ]  # fmt: skip
        case "slurmd":
            return [
                "unshare", "--mount", "--uts", "--propagation", "slave",
                "sh", "-c", ON_A_NODE, "sh", str(sandbox.hosts), node,
                "slurmd", "-D", "-f", str(sandbox.conf), "-N", node,
            ]  # fmt: skip
    return [program, "-D"]  # slurmctld and slurmdbd, which know their files by SLURM_CONF


def ready(sandbox: Layout, daemon: str) -> bool:
    """True if a daemon that runs answers; the nodes are waited for together."""
    questions = {
        "munged": ("munge", "-n", "-S", str(sandbox.munge_socket)),
        "slurmdbd": ("sacctmgr", "-n", "list", "cluster"),
        "slurmctld": ("scontrol", "ping"),
    }
    if daemon == "mariadbd":
        return sandbox.database_socket.exists()
    return daemon not in questions or call(sandbox, *questions[daemon]).returncode == 0


def _make_database(sandbox: Layout) -> None:
    sandbox.database_socket.unlink(missing_ok=True)
    if (sandbox.folder / "db").exists():
        return
    unfinished = sandbox.folder / "db.new"
    shutil.rmtree(unfinished, ignore_errors=True)
    done = call(
        sandbox,
        *("mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={unfinished}"),
        *("--skip-test-db", "--skip-name-resolve", "--auth-root-authentication-method=normal"),
        timeout_s=120,
    )
    if done.returncode:
        raise SandboxError(f"the database could not be made: {done.stdout}{done.stderr}")
    unfinished.rename(sandbox.folder / "db")
