"""Options that every command shares, and how a command line becomes a dataclass."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import tyro

from common import runs
from common.errors import UserError
from common.files import check_writable

Command = TypeVar("Command")


@dataclass(frozen=True)
class Resources:
    """Where and on what a job runs.

    Attributes:
        cluster: slurm, local (a background process on this machine), debug (this process), or
            auto: this process under torchrun or srun, else Slurm if sbatch is on the PATH,
            else local.
        nodes: Number of nodes.
        gpus_per_node: One process each; 0 runs on CPUs. Default: 8 on Slurm, all of this
            machine's elsewhere.
        tasks_per_node: Processes of each node. Default: one per GPU; 1 on CPUs.
        cpus_per_task: CPU cores of each process.
        partition: Slurm partition.
        timeout_min: Time limit of the job in minutes. Default: a day on Slurm.
        wait: Follow the log of a Slurm job to its end.
    """

    cluster: Literal["auto", "slurm", "local", "debug"] = "auto"
    nodes: int = 1
    gpus_per_node: int | None = None
    tasks_per_node: int | None = None
    cpus_per_task: int = 8
    partition: str | None = None
    timeout_min: int | None = None
    wait: bool = False


@dataclass(frozen=True)
class RunOptions:
    """Which folder a run has.

    Attributes:
        name: Name of the run folder; by default made of what tells the run from others.
        output_dir: Folder that holds runs/ and results/.
        fresh: Delete what an earlier run of this name left, and start again.
    """

    name: str | None = None
    output_dir: Path = Path()
    fresh: bool = False

    def folder(self, kind: str, name: str) -> Path:
        """The run folder, which need not exist yet.

        Raises:
            UserError: if it could not be written.
        """
        if self.name is not None and Path(self.name).name != self.name:
            raise UserError(f"--name {self.name} is not a plain folder name.")
        folder = runs.run_folder(self.output_dir, kind, self.name or name)
        check_writable(folder)
        return folder


def parse(command: type[Command], prog: str, arguments: list[str] | None = None) -> Command:
    """The command line as a ``command``; tyro prints what is wrong with it and exits with 2."""
    words = sys.argv[1:] if arguments is None else arguments
    # --epochs and not --config.epochs; --fresh without a --no-fresh.
    style = (tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff)
    return tyro.cli(command, prog=prog, args=words, config=style)
