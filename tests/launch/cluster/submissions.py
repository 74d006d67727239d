"""Runs of nothing, and submitting them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launch.cluster.jobs import Job
from launch.cluster.resources import Resources
from launch.cluster.submit import launch

CPUS = Resources(gpus_per_node=0, tasks_per_node=2, cpus_per_gpu=3)


@dataclass(frozen=True)
class Config:
    """What a run is told."""

    seed: int = 0

    def identity(self) -> dict[str, Any]:
        return {"seed": self.seed}


def job(output_dir: Path, seed: int = 0) -> Job:
    return Job(
        "semi", print, Config(seed), output_dir / "runs" / "semi" / f"s{seed}", output_dir, 1
    )


def start(*arguments: Any, **options: Any) -> dict[Path, str]:
    """The job of each run folder that Slurm has been given, now or before."""
    return {job.folder: handle.job_id for job, handle in launch(*arguments, **options)}


def files(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() if p.is_file() else b"" for p in folder.rglob("*")}
