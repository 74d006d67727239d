"""Debian's packages of Slurm: which, whether they are here, and how they get here."""

import os
import shutil
import subprocess
import sys
import tempfile

from slurm_sandbox.layout import SandboxError

SLURM = {
    "munge": ("munged", "munge"),
    "slurmctld": ("slurmctld",),
    "slurmd": ("slurmd",),
    "slurm-client": ("sbatch", "srun", "scancel", "scontrol", "sinfo", "squeue"),
}
"""Each package, and the programs of it that a sandbox needs."""

ACCOUNTING = {
    "slurmdbd": ("slurmdbd",),
    # -core: the programs alone, without a service of the whole system
    "mariadb-server-core": ("mariadbd", "mariadb-install-db"),
    "mariadb-client-core": ("my_print_defaults",),
}
"""Likewise, for ``sacct`` to have answers."""

APT = ("apt-get", "-o", "DPkg::Lock::Timeout=300")


def search_path() -> str:
    """``PATH`` and where Debian puts daemons, which not every root shell searches."""
    return os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))


def find(program: str) -> str:
    """The path of a program.

    Raises:
        SandboxError: if it is not installed.
    """
    path = shutil.which(program, path=search_path())
    if path is None:
        raise _not_installed([program])
    return path


def missing(accounting: bool = True) -> list[str]:
    """Programs that a sandbox needs and that are not installed."""
    packages = SLURM | (ACCOUNTING if accounting else {})
    programs = (program for programs in packages.values() for program in programs)
    return [name for name in programs if shutil.which(name, path=search_path()) is None]


def check(accounting: bool) -> None:
    """Raise unless all that a sandbox needs is installed.

    Raises:
        SandboxError: naming the programs and the verb that installs them.
    """
    absent = missing(accounting)
    if absent:
        raise _not_installed(absent)


def _not_installed(programs: list[str]) -> SandboxError:
    return SandboxError(
        f"Slurm is not installed here (missing: {', '.join(programs)}); install it with "
        f"{sys.argv[0]} install.",
        status=2,
    )


def install(accounting: bool) -> None:
    """Install what is missing with apt, which no other verb does.

    Where systemd runs, Debian starts a munge of its own then; sandboxes do not use it.

    Raises:
        SandboxError: without root or apt, or if apt fails.
    """
    absent = missing(accounting)
    if not absent:
        print("slurm-sandbox: Slurm is installed already", file=sys.stderr)
        return
    if shutil.which(APT[0], path=search_path()) is None:
        raise SandboxError(
            f"cannot install Slurm (missing: {', '.join(absent)}) without apt-get: install Slurm's "
            "daemons and clients, munge and MariaDB in this system's own way.",
            status=2,
        )
    if os.geteuid() != 0:
        raise SandboxError(
            f"cannot install Slurm (missing: {', '.join(absent)}) without root: run "
            f"{sys.argv[0]} install as root.",
            status=2,
        )
    names = [*SLURM, *(ACCOUNTING if accounting else ())]
    print(f"slurm-sandbox: apt-get installs {' '.join(names)}", file=sys.stderr)
    _apt(names)
    check(accounting)


def _apt(names: list[str]) -> None:
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "PATH": search_path()}
    with tempfile.TemporaryFile("w+") as output:
        for command in (["update"], ["install", "--yes", "--no-install-recommends", *names]):
            # A package list that could not be renewed may still do: the installation decides.
            result = subprocess.run(
                [*APT, *command],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        if result.returncode:
            output.seek(0)
            sys.stderr.writelines(output.readlines()[-20:])
            raise SandboxError(
                f"apt-get could not install {' '.join(names)}: see above what it says."
            )
