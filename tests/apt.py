"""Debian's packages that some tests need: ``python tests/apt.py slurm`` installs them (root, apt).

Standard library only: ``make slurm`` and ``make browser`` run before any environment exists.
"""

import os
import shutil
import subprocess
import sys
from typing import NamedTuple


class Software(NamedTuple):
    """What tests need, and the packages of it."""

    name: str
    target: str  # of make, that installs it
    otherwise: str  # what to install where there is no apt
    programs: dict[str, tuple[str, ...]]  # that tests run, by package


SLURM = Software(
    "Slurm",
    "slurm",
    "Slurm's daemons and clients, munge and MariaDB",
    {
        "munge": ("munged", "munge"),
        "slurmctld": ("slurmctld",),
        "slurmd": ("slurmd",),
        "slurm-client": ("sbatch", "srun", "scancel", "scontrol", "sinfo", "squeue", "sacct"),
        "slurmdbd": ("slurmdbd",),
        # -core: the programs alone, without a service of the whole system
        "mariadb-server-core": ("mariadbd", "mariadb-install-db"),
        "mariadb-client-core": ("my_print_defaults",),
    },
)
CHROMIUM = Software("Chromium", "browser", "Chromium", {"chromium": ("chromium",)})

PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
"""``PATH`` and the folders of Debian's daemons, which not every root shell searches."""

APT = ("apt-get", "-o", "DPkg::Lock::Timeout=300")


def missing(software: Software) -> str:
    """The programs that are not installed, separated by commas."""
    programs = [program for programs in software.programs.values() for program in programs]
    return ", ".join(name for name in programs if shutil.which(name, path=PATH) is None)


def absence(software: Software) -> str:
    """The sentence that says that something is missing; empty if all is there."""
    name, absent = software.name, missing(software)
    hint = f"install it with `make {software.target}`"
    return f"{name} is not installed here (missing: {absent}); {hint}" if absent else ""


def install(software: Software) -> str:
    """Install what is missing, and return a sentence if that fails."""
    name, absent = software.name, missing(software)
    if not absent:
        print(f"{name} is installed already")
        return ""
    if shutil.which(APT[0], path=PATH) is None:
        return (
            f"cannot install {name} (missing: {absent}) without apt-get: install "
            f"{software.otherwise} in this system's own way."
        )
    if os.geteuid() != 0:
        return f"cannot install {name} (missing: {absent}) without root: run this as root."
    print(f"apt-get installs {' '.join(software.programs)}", flush=True)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "PATH": PATH}
    # A package list that cannot be renewed may still do: the installation decides.
    subprocess.run([*APT, "-qq", "update"], env=environment)
    words = [*APT, "-qq", "install", "--yes", "--no-install-recommends", *software.programs]
    failed = subprocess.run(words, env=environment, stdout=subprocess.DEVNULL).returncode
    if failed or missing(software):
        absent = missing(software)
        return f"apt-get could not install {name} (missing: {absent}); its message is above."
    return ""


if __name__ == "__main__":
    if problem := install({"slurm": SLURM, "chromium": CHROMIUM}[sys.argv[1]]):
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(2)
