"""A real, private Slurm cluster of virtual nodes on this machine (Debian, root).

    make slurm                                       # once: install Slurm's packages with apt
    eval "$(python -m tests.slurm.sandbox start)"    # start it, and lead this shell to it
    python -m tests.slurm.sandbox stop               # end jobs and daemons, delete the folder

start brings back daemons that were killed, too. Partitions: main, the default, and high, whose jobs
preempt those in main.
"""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from common.errors import command
from tests.slurm.sandbox.cluster import Sandbox
from tests.slurm.sandbox.layout import SandboxError

FOLDER = Path(tempfile.gettempdir()) / f"lewel-slurm-{os.getuid()}"


@dataclass(frozen=True)
class Options:
    """A verb, and the options of the cluster.

    Attributes:
        verb: What to do.
        folder: Everything of the cluster; nothing else is touched.
        nodes: Virtual nodes.
        gpus_per_node: GPUs of each node; they exist for Slurm only.
        cpus_per_node: CPUs of each node; they may exceed what the machine has.
        accounting: Run a database, so that sacct answers.
    """

    verb: tyro.conf.Positional[Literal["start", "stop"]]
    folder: Path = FOLDER
    nodes: int = 2
    gpus_per_node: int = 2
    cpus_per_node: int = 8
    accounting: bool = True


@command
def main(arguments: list[str] | None = None) -> None:
    """The command."""
    typed = tyro.cli(Options, description=__doc__, args=arguments)
    folder = typed.folder.absolute()
    if typed.verb == "start":
        sizes = typed.nodes, typed.gpus_per_node, typed.cpus_per_node
        sandbox = Sandbox(folder, *sizes, typed.accounting)
        sandbox.start()
        print(f"export SLURM_CONF={sandbox.conf}")
        return
    saved = Sandbox(folder).saved()
    if saved is None:
        raise SandboxError(f"there is no sandbox in {folder}; start one, or name its --folder.")
    saved.stop()


if __name__ == "__main__":
    main()
