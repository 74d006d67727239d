"""Small jobs for the tests in this folder: the commands, typed in this process, and their ends."""

import json
from pathlib import Path
from typing import Any

from common.runs import is_finished
from launch.cluster.records import Record
from launch.pretrain import run
from slurm_trial_parts.runs import wait_for_end

NETWORK = (
    "--data demo --backbone resnet18 --image-size 32 --batch-size 20 --proj-dim 32 --hidden-dim 64 "
    "--norm eman --knn-every 0 --log-every 1 --checkpoint-min 0.02 --gpus-per-node 0 "
    "--cpus-per-gpu 1"
)
DETECTOR = """\
_BASE_: {base}
SOLVER: {{MAX_ITER: 4, STEPS: "(3,)", IMS_PER_BATCH: 2}}
TEST: {{PRECISE_BN: {{NUM_ITER: 1}}}}
INPUT: {{MIN_SIZE_TRAIN: "(64,)", MIN_SIZE_TEST: 64}}
DATALOADER: {{NUM_WORKERS: 1}}
"""


def pretrain(output_dir: Path, words: str, cluster: str = "slurm") -> Path:
    """Type a small pre-training's command; its run folder."""
    where = f"--cluster {cluster} --output-dir {output_dir}"
    folder = run(f"{NETWORK} {where} {words}".split())
    assert folder is not None
    return folder


def detector(folder: Path) -> Path:
    """A user's own YAML, of the smallest detector."""
    base = Path(__file__).parents[2] / "det_configs" / "demo_voc_R_18_FPN.yaml"
    path = folder / "mine.yaml"
    path.write_text(DETECTOR.format(base=base))
    return path


def record(folder: Path) -> Record:
    """Which job was given a run."""
    found = Record.read(folder)
    assert found is not None
    return found


def end(folder: Path) -> str:
    """Wait for the end of the run's job; Slurm's word for it."""
    return wait_for_end(record(folder).job_id)


def finished(folder: Path) -> dict[str, Any]:
    """The final metrics of a run that must be finished."""
    assert is_finished(folder), output(folder)
    metrics: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return metrics


def output(folder: Path) -> str:
    """What all processes of the run's jobs have printed."""
    return "\n".join(path.read_text() for path in sorted(folder.glob("submitit/*/*_log.*")))
