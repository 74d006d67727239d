"""Runs of nothing, and submitting them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launch.slurm.job import Job
from launch.slurm.resources import Resources
from launch.slurm.states import Record
from launch.slurm.submission import launch

CPUS = Resources(gpus_per_node=0, tasks_per_node=2, cpus_per_gpu=3)


@dataclass(frozen=True)
class Config:
    """What a run is told."""

    seed: int = 0

    def identity(self) -> dict[str, Any]:
        return {"seed": self.seed}


def job(output_dir: Path, seed: int = 0, **options: Any) -> Job:
    folder = output_dir / "runs" / "semi" / f"s{seed}"
    return Job("semi", print, Config(seed), folder, output_dir, 1, **options)


def record(folder: Path) -> Record:
    """The job that a run was given to."""
    found = Record.read(folder)
    assert found is not None
    return found


def start(*arguments: Any, **options: Any) -> dict[Path, str]:
    """The job of each run folder that Slurm has been given, now or before."""
    return {job.folder: handle.job_id for job, handle in launch(*arguments, **options)}


def files(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() if p.is_file() else b"" for p in folder.rglob("*")}
