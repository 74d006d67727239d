"""Checks of Slurm: partitions and their GPUs, accounting, and the site's settings."""

import re
import shutil
import subprocess
from collections.abc import Iterator

from launch.checks.check import Check, attempt
from launch.slurm import site
from launch.slurm.resources import SLURM_GPUS, Resources, gpus_of_gres
from launch.slurm.states import TIMEOUT_S, call

COLUMNS = "%P|%l|%D|%G"  # partition, time limit, nodes, generic resources


def is_here() -> bool:
    """True if jobs go to Slurm by themselves."""
    return shutil.which("sbatch") is not None


def slurm() -> Iterator[Check]:
    """Check the site's settings, partitions and accounting; one line where there is no Slurm."""
    settings: list[Resources] = []

    def read() -> Check:
        settings.append(site.resources())
        file = site.file()
        found = str(file) if file.exists() else f"none ({file} is not there); options alone count"
        return Check("site settings", "ok", found)

    yield attempt("site settings", read, f"$EDITOR {site.file()}", needed=True)
    if not is_here():
        yield Check("Slurm", "ok", "no sbatch on the PATH: local jobs only")
        return
    if shutil.which("srun") is None:
        found = "sbatch is on the PATH but srun is not; jobs need both"
        yield Check("Slurm", "missing", found, "apt install slurm-client")
        return
    status, answer = _ask("sinfo", "-h", "-o", COLUMNS)
    if status:
        yield Check(
            "Slurm", "missing", f"its controller does not answer: {answer}", "scontrol ping"
        )
        return
    partitions = [line.split("|") for line in answer.splitlines()]
    yield _partitions(partitions, settings[0] if settings else Resources())
    status, _ = _ask("sacct", "-n", "-X", "-P", "-o", "JobID", "-j", "1")
    if not status:
        yield Check("accounting", "ok", "sacct answers")
    else:
        found = "sacct does not answer: how a job ended is known for minutes only"
        yield Check("accounting", "warning", found, "scontrol show config | grep Accounting")


def _partitions(rows: list[list[str]], settings: Resources) -> Check:
    """The partitions, and whether one has what a job asks for by default."""
    if not rows:
        return Check("Slurm", "missing", "sinfo shows no partition to you", "sinfo -a -s")
    shown = [
        f"{name} ({nodes} nodes, {gres if gres != '(null)' else 'no GPUs'}, limit {limit})"
        for name, limit, nodes, gres in rows
    ]
    found = "partitions " + ", ".join(shown)
    names = {name.rstrip("*") for name, *_ in rows}
    wanted = settings.partition
    if wanted and not {*wanted.split(",")} <= names:
        mend = f"$EDITOR {site.file()}    # or LEWEL_SLURM_PARTITION, SBATCH_PARTITION"
        return Check("Slurm", "warning", f"{found}; the site's, {wanted}, is not there", mend)
    most = max(gpus_of(gres) for *_, gres in rows)
    asked = SLURM_GPUS if settings.gpus_per_node is None else settings.gpus_per_node
    if asked > most:
        found += f"; a job asks for {asked} GPUs a node and no node has more than {most}"
        file = site.file()
        mend = f"mkdir -p {file.parent}; echo 'gpus_per_node = {most}' >> {file}"
        return Check("Slurm", "warning", found, mend)
    return Check("Slurm", "ok", found)


def gpus_of(gres: str) -> int:
    """GPUs of a node whose generic resources sinfo shows, as in ``gpu:a100:8(S:0-1),nvme:1``."""
    return gpus_of_gres([f"gres={re.sub(r'[(][^)]*[)]', '', gres)}"]) or 0


def _ask(*command: str) -> tuple[int, str]:
    """Status and answer of a command of Slurm's; the error's last line if it failed."""
    try:
        done = call(command)
    except subprocess.TimeoutExpired:
        return 1, f"no answer in {TIMEOUT_S} s"
    except OSError as error:
        return 1, f"{command[0]}: {error.strerror}"
    said = done.stderr.strip().splitlines()
    return done.returncode, (said[-1] if done.returncode and said else done.stdout.strip())
