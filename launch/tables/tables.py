"""Results tables: CSV files rebuilt from the ``metrics.json`` of finished runs."""

from pathlib import Path
from typing import TYPE_CHECKING

from common import runs
from common.errors import UserError
from common.files import atomic_write
from common.locks import locked
from demo.classes import VOC_CLASSES

if TYPE_CHECKING:
    import pandas as pd

ORIGIN = "method norm pretrain_epochs pretrain_recipe".split()
SOLVER = "lr low_lr batch_size batch_per_process scaled seed".split()
AP = "AP AP50 AP75 APs APm APl".split()
MACHINE = "git_commit versions device precision run".split()
FINE_TUNING = [
    *"iterations steps warmup_iterations eval_only unreadable_images restarts wall_time_s".split(),
    *"weights_sha256 overrides config_hash demo".split(),
    *MACHINE,
]
CLASSIFIER = [
    *"weight_decay batch_size epochs image_size seed top1 top1_low top1_high top5".split(),
    *"images_train images_val unreadable_images restarts wall_time_s weights_sha256 demo".split(),
    *MACHINE,
]

# Columns of ``results/<kind>.csv``, made of ``runs/<kind>/``: keys of metrics.json, in order.
TABLES: dict[str, list[str]] = {
    "transfer": [
        *("config", "dataset", "own_data", *ORIGIN, *SOLVER),
        *(f"{kind}_{name}" for kind in ("box", "mask") for name in AP),
        *FINE_TUNING,
    ],
    "segmentation": [
        *("config", *ORIGIN, *SOLVER, "mIoU", "fwIoU", "mACC", "pACC"),
        *(f"IoU-{name}" for name in ("background", *VOC_CLASSES)),
        *FINE_TUNING,
    ],
    "linear": [*ORIGIN, "architecture", "lr", *CLASSIFIER],
    "semi": [
        *(*ORIGIN, "architecture", "percent", "subset", "backbone_lr", "head_lr"),
        *CLASSIFIER,
    ],
}


def read(output_dir: Path, kind: str) -> "pd.DataFrame":
    """The rows of all finished runs of a kind, oldest first; columns that a run lacks are empty."""
    import pandas as pd

    rows = [
        {**metrics, "run": folder.name} for folder, metrics in runs.finished_runs(output_dir, kind)
    ]
    # Whole numbers stay whole where some runs have none.
    return pd.DataFrame(rows, columns=TABLES[kind]).convert_dtypes()


def rebuild(output_dir: Path) -> None:
    """Rebuild every table of ``results/`` that has a finished run.

    Runs that end at the same moment wait for each other: the later one sees both.
    """
    results = output_dir / "results"
    try:
        results.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot make the folder {results}: {error.strerror or error}; move what is there."
        ) from error
    with locked(results / ".lock"):
        for kind in TABLES:
            frame = read(output_dir, kind)
            if len(frame):
                with atomic_write(results / f"{kind}.csv", "w") as file:
                    frame.to_csv(file, index=False)
