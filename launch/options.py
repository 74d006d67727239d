"""Options that every command shares, and how a command line becomes a dataclass."""

import itertools
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar, get_origin, get_type_hints

from common import command_line, runs
from common.errors import UserError
from common.files import check_writable
from common.provenance import ROOT
from launch.slurm import site
from launch.slurm.resources import Resources
from launch.slurm.site import resources

__all__ = ["CONFIGS", "Resources", "RunOptions", "located", "parse", "resources"]

CONFIGS = ROOT / "det_configs"  # the published jobs

Command = TypeVar("Command")


@dataclass(frozen=True)
class RunOptions:
    """Folder of a run.

    Attributes:
        name: Name of the run folder. Default: made of what tells it apart.
        output_dir: Folder that holds runs/ and results/.
        fresh: Delete what an earlier run of this name left, and start again.
    """

    name: str | None = None
    output_dir: Path = Path()
    fresh: bool = False

    def folder(self, kind: str, name: str) -> Path:
        """The run folder, which need not exist yet; a UserError if it could not be written."""
        if self.name is not None and Path(self.name).name != self.name:
            raise UserError(f"--name {self.name} is not a plain folder name.")
        folder = runs.run_folder(self.output_dir, kind, self.name or name)
        check_writable(folder)
        return folder

    def folder_of(self, kind: str, config: Any) -> Path:
        """The run folder of a configuration that starts from weights.

        Runs from our own pre-training were once named after the weights' SHA-256, and go on in
        the folder that they have.
        """
        folder = self.folder(kind, config.run_name())
        if self.name is None and config.weights.sha256 and not folder.exists():
            former = folder.with_name(config.run_name(config.weights.sha256[:8]))
            return former if former.exists() else folder
        return folder


def parse(command: type[Command], prog: str, arguments: list[str] | None = None) -> Command:
    """The command line as a ``command``, as :func:`common.command_line.parse` reads it.

    The site's settings are in it where its job goes to Slurm.
    """
    words = sys.argv[1:] if arguments is None else arguments
    _require_values(command, words)
    return site.kept_to_slurm(command_line.parse(command, prog, words), words)


def located(config: Path) -> Path:
    """The absolute path of a config, which may be the bare name of one of ``det_configs/``.

    What is typed as ``det_configs/NAME`` is found from any working folder.
    """
    ours = CONFIGS / f"{config.name.removesuffix('.yaml')}.yaml"
    bare = str(config.parent) in (".", CONFIGS.name)
    return (ours if bare and not os.path.exists(config) and ours.exists() else config).resolve()


def _require_values(command: type[Any], words: Sequence[str]) -> None:
    """Refuse an option of several values that has none, as where a shell's variable is empty."""
    hints = get_type_hints(command)
    several = [
        f"--{field.name.replace('_', '-')}"
        for field in fields(command)
        if get_origin(hints[field.name]) is tuple
    ]
    for word, following in itertools.pairwise([*words, "--"]):
        if word.replace("_", "-") in several and following.startswith("--"):
            raise UserError(f"{word} has no value; give one, or leave it out.")
