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
    """A verb, and the place of the cluster.

    Attributes:
        verb: What to do.
        folder: Everything of the cluster; nothing else is touched.
    """

    verb: tyro.conf.Positional[Literal["start", "stop"]]
    folder: Path = FOLDER


@command
def main(arguments: list[str] | None = None) -> None:
    """The command."""
    typed = tyro.cli(Options, description=__doc__, args=arguments)
    folder = typed.folder.absolute()
    if typed.verb == "start":
        sandbox = Sandbox(folder)
        sandbox.start()
        print(f"export SLURM_CONF={sandbox.conf}")
        return
    saved = Sandbox(folder).saved()
    if saved is None:
        raise SandboxError(f"there is no sandbox in {folder}; start one, or name its --folder.")
    saved.stop()


if __name__ == "__main__":
    main()
