"""Debian's packages of Slurm. As a script, install those that are missing (root, apt).

Standard library only: ``make slurm`` runs before any environment exists.
"""

import os
import shutil
import subprocess
import sys

PROGRAMS = {
    "munge": ("munged", "munge"),
    "slurmctld": ("slurmctld",),
    "slurmd": ("slurmd",),
    "slurm-client": ("sbatch", "srun", "scancel", "scontrol", "sinfo", "squeue", "sacct"),
    "slurmdbd": ("slurmdbd",),
    # -core: the programs alone, without a service of the whole system
    "mariadb-server-core": ("mariadbd", "mariadb-install-db"),
    "mariadb-client-core": ("my_print_defaults",),
}
"""Each package, and its programs that a sandbox runs."""

PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
"""``PATH`` and the folders of Debian's daemons, which not every root shell searches."""

APT = ("apt-get", "-o", "DPkg::Lock::Timeout=300")


def missing() -> str:
    """The programs that are not installed, separated by commas."""
    programs = [program for programs in PROGRAMS.values() for program in programs]
    return ", ".join(name for name in programs if shutil.which(name, path=PATH) is None)


def obstacle() -> str:
    """The reason why no sandbox can start here; empty if one can."""
    if absent := missing():
        return f"Slurm is not installed here (missing: {absent}); install it with `make slurm`"
    return "" if os.geteuid() == 0 else "Slurm's daemons need root"


def install() -> str:
    """Install what is missing, and return a sentence if that fails."""
    absent = missing()
    if not absent:
        print("Slurm is installed already")
        return ""
    if shutil.which(APT[0], path=PATH) is None:
        return (
            f"cannot install Slurm (missing: {absent}) without apt-get: install Slurm's daemons "
            "and clients, munge and MariaDB in this system's own way."
        )
    if os.geteuid() != 0:
        return f"cannot install Slurm (missing: {absent}) without root: run this as root."
    print(f"apt-get installs {' '.join(PROGRAMS)}", flush=True)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "PATH": PATH}
    # A package list that cannot be renewed may still do: the installation decides.
    subprocess.run([*APT, "-qq", "update"], env=environment)
    words = [*APT, "-qq", "install", "--yes", "--no-install-recommends", *PROGRAMS]
    if subprocess.run(words, env=environment, stdout=subprocess.DEVNULL).returncode or missing():
        return f"apt-get could not install Slurm (missing: {missing()}); its message is above."
    return ""


if __name__ == "__main__":
    if problem := install():
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(2)
