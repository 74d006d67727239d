"""Results tables: CSV files made anew from the runs' ``metrics.json``, under a lock."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from common import runs
from common.errors import UserError
from common.files import atomic_write
from common.locks import locked
from demo.classes import VOC_CLASSES

AP = ("AP", "AP50", "AP75", "APs", "APm", "APl")
ORIGIN = ("method", "norm", "pretrain_epochs", "pretrain_recipe")
SOLVER = ("lr", "low_lr", "batch_size", "batch_per_process", "scaled", "seed")
FINE_TUNING = (
    "iterations",
    "steps",
    "warmup_iterations",
    "eval_only",
    "unreadable_images",
    "restarts",
    "wall_time_s",
    "weights_sha256",
    "overrides",
    "config_hash",
    "demo",
    "git_commit",
    "versions",
    "device",
    "precision",
    "run",
)
CLASSIFIER = (
    "weight_decay",
    "batch_size",
    "epochs",
    "image_size",
    "seed",
    "top1",
    "top1_low",
    "top1_high",
    "top5",
    "images_train",
    "images_val",
    "unreadable_images",
    "restarts",
    "wall_time_s",
    "weights_sha256",
    "demo",
    "git_commit",
    "versions",
    "device",
    "precision",
    "run",
)


@dataclass(frozen=True)
class Table:
    """A CSV in ``results/``.

    Attributes:
        kind: the runs it is made of, ``runs/<kind>/``; also the file's name.
        columns: keys of ``metrics.json``, in order; a new one is one more name here.
    """

    kind: str
    columns: tuple[str, ...]


TABLES = (
    Table(
        "transfer",
        (
            "config",
            "dataset",
            "own_data",
            *ORIGIN,
            *SOLVER,
            *(f"box_{name}" for name in AP),
            *(f"mask_{name}" for name in AP),
            *FINE_TUNING,
        ),
    ),
    Table(
        "segmentation",
        (
            "config",
            *ORIGIN,
            *SOLVER,
            *("mIoU", "fwIoU", "mACC", "pACC"),
            *(f"IoU-{name}" for name in ("background", *VOC_CLASSES)),
            *FINE_TUNING,
        ),
    ),
    Table("linear", (*ORIGIN, "architecture", "lr", *CLASSIFIER)),
    Table(
        "semi",
        (
            *ORIGIN,
            "architecture",
            "percent",
            "subset",
            "backbone_lr",
            "head_lr",
            *CLASSIFIER,
        ),
    ),
)


def read(output_dir: Path, table: Table) -> pd.DataFrame:
    """The rows of all finished runs, oldest first; columns that a run lacks are empty."""
    rows = [
        {**metrics, "run": folder.name}
        for folder, metrics in runs.finished_runs(output_dir, table.kind)
    ]
    # Whole numbers stay whole where some runs have none.
    return pd.DataFrame(rows, columns=list(table.columns)).convert_dtypes()


def rebuild(output_dir: Path) -> None:
    """Make every table of ``results/`` anew that has a finished run.

    Runs that end at the same moment wait for each other: the later one sees both.

    Raises:
        UserError: if the folder cannot be made.
    """
    results = output_dir / "results"
    try:
        results.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot make the folder {results}: {error.strerror or error}; move what is there."
        ) from error
    with locked(results / ".lock"):
        for table in TABLES:
            frame = read(output_dir, table)
            if len(frame):
                with atomic_write(results / f"{table.kind}.csv", "w") as file:
                    frame.to_csv(file, index=False)
