"""Small jobs for the tests in this folder: a command, typed in this process, and its end."""

import json
from pathlib import Path
from typing import Any

from launch.pretrain import run
from tests.slurm.sandbox.cluster import Sandbox
from tests.slurm.trial.runs import is_finished, record

NETWORK = (
    "--data demo --backbone resnet18 --image-size 32 --batch-size 20 --proj-dim 32 --hidden-dim 64 "
    "--norm eman --knn-every 0 --log-every 1 --checkpoint-min 0.02 --gpus-per-node 0 "
    "--cpus-per-gpu 1"
)


def pretrain(output_dir: Path, words: str, cluster: str = "slurm") -> Path:
    """Type a small pre-training's command, and return its run folder."""
    where = f"--cluster {cluster} --output-dir {output_dir}"
    folder = run(f"{NETWORK} {where} {words}".split())
    assert folder is not None
    return folder


def end(slurm: Sandbox, folder: Path) -> str:
    """Wait for the end of the run's job, and return its state."""
    return slurm.wait_for_end(record(folder)["job_id"])


def finished(folder: Path) -> dict[str, Any]:
    """The final metrics of a run that must be finished."""
    assert is_finished(folder), output(folder)
    metrics: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return metrics


def output(folder: Path) -> str:
    """The output of all processes of the run's jobs."""
    return "\n".join(path.read_text() for path in sorted(folder.glob("submitit/*/*_log.*")))
