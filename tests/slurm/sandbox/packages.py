"""Whether Slurm's packages are there."""

import os

from tests.apt import PATH, SLURM, absence

__all__ = ["PATH", "obstacle"]


def obstacle() -> str:
    """The reason why no sandbox can start here; empty if one can."""
    needs_root = "" if os.geteuid() == 0 else "Slurm's daemons need root"
    return absence(SLURM) or needs_root
