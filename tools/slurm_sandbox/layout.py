"""What a sandbox is made of: its options, its one folder, and its daemons."""

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

FOLDER_VARIABLE = "LEWEL_SLURM_SANDBOX"
PORT_VARIABLE = "LEWEL_SLURM_SANDBOX_PORT"
MARKER = ".slurm-sandbox"
"""The lock of a sandbox, and the sign that a folder is one and may be deleted."""


class SandboxError(Exception):
    """What went wrong and what to do, in one sentence.

    Attributes:
        status: exit status of the command; 2 where nothing was tried.
    """

    def __init__(self, sentence: str, status: int = 1) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True)
class Options:
    """What a cluster is like.

    Attributes:
        nodes: virtual nodes, ``n1``, ``n2``, ...
        gpus_per_node: stand-ins, which exist for Slurm only.
        cpus_per_node: as Slurm counts them; may exceed what the machine has.
        accounting: run slurmdbd and a database, so that ``sacct`` answers.
        port: the controller's; the others follow it.
    """

    nodes: int = 2
    gpus_per_node: int = 2
    cpus_per_node: int = 8
    accounting: bool = True
    port: int = 0

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in asdict(self).items())


@dataclass(frozen=True)
class Sandbox:
    """One cluster; everything it reads and writes is in ``folder``."""

    folder: Path
    options: Options

    @property
    def conf(self) -> Path:
        """What ``SLURM_CONF`` must name."""
        return self.folder / "slurm.conf"

    @property
    def hosts(self) -> Path:
        """The nodes' ``/etc/hosts``, by which their processes are recognised."""
        return self.folder / "hosts"

    @property
    def munge_socket(self) -> Path:
        """Where clients find munged."""
        return self.folder / "run" / "munge.sock"

    @property
    def database_socket(self) -> Path:
        """Where slurmdbd finds the database, and nobody else: the folder is root's."""
        return self.folder / "secret" / "mysql.sock"

    @property
    def node_names(self) -> list[str]:
        """``n1``, ``n2``, ..."""
        return [f"n{number}" for number in range(1, self.options.nodes + 1)]

    @property
    def daemons(self) -> list[str]:
        """Names of the daemons, in the order in which they must start."""
        accounting = ["mariadbd", "slurmdbd"] if self.options.accounting else []
        return ["munged", *accounting, "slurmctld", *(f"slurmd.{name}" for name in self.node_names)]

    @property
    def ports(self) -> list[int]:
        """Every TCP port that it listens on: controller, database daemon, nodes."""
        first = self.options.port
        return [first, first + 1, *(first + 10 + n for n in range(1, self.options.nodes + 1))]

    def pid_file(self, daemon: str) -> Path:
        """Where a daemon writes its process id."""
        return self.folder / "run" / f"{daemon}.pid"

    def save(self) -> None:
        """Keep the options, for the other verbs and the next start."""
        write(self.folder / "options.json", json.dumps(asdict(self.options), indent=2) + "\n")


def load(folder: Path) -> Sandbox | None:
    """The sandbox in ``folder``; None if there is none."""
    path = folder / "options.json"
    try:
        return Sandbox(folder, Options(**json.loads(path.read_text())))
    except FileNotFoundError:
        return None
    except (OSError, TypeError, ValueError) as error:
        raise SandboxError(f"cannot read {path} ({error}); delete {folder}.") from error


def default_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """The folder that :data:`FOLDER_VARIABLE` names, or this user's own among temporary files."""
    named = environment.get(FOLDER_VARIABLE)
    return Path(named or f"{tempfile.gettempdir()}/lewel-slurm-{os.getuid()}").absolute()


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file that is either whole or as it was."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(text)
    temporary.replace(path)
