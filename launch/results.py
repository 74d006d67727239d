"""Rebuild and show the results tables: ``python launch/results.py``."""

import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table as RichTable

if __name__ == "__main__":  # not launch/, where ``import pretrain`` would find another file
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from common.errors import UserError, command
from launch import tables
from launch.options import parse

SHOWN = (
    "config",
    "method",
    "norm",
    "pretrain_epochs",
    "lr",
    "low_lr",
    "seed",
    "box_AP",
    "box_AP50",
    "box_AP75",
    "mask_AP",
    "mask_AP50",
    "mask_AP75",
    "iterations",
    "wall_time_s",
)


@dataclass(frozen=True)
class Command:
    """Rebuild results/*.csv from the finished runs and print them.

    Attributes:
        output_dir: Folder that holds runs/ and results/.
    """

    output_dir: Path = Path()


def show(output_dir: Path) -> None:
    """Rebuild the tables and print those that have rows.

    Raises:
        UserError: if no run is finished.
    """
    frames = {table.kind: tables.read(output_dir, table) for table in tables.TABLES}
    if not any(map(len, frames.values())):
        raise UserError(
            f"no finished run in {output_dir.resolve() / 'runs'}; start one with "
            "launch/transfer.py."
        )
    tables.rebuild(output_dir)
    console = Console(width=None if sys.stdout.isatty() else 160)
    for kind, frame in frames.items():
        if len(frame):
            console.print(_rich(kind, frame))
            console.print(f"all columns: {output_dir / 'results' / kind}.csv")


def _rich(kind: str, frame: pd.DataFrame) -> RichTable:
    shown = frame[[c for c in SHOWN if c in frame]].dropna(axis=1, how="all")
    table = RichTable(title=kind)
    for name in shown:
        table.add_column(str(name), justify="right" if shown[name].dtype.kind in "fi" else "left")
    for row in shown.itertuples(index=False):
        table.add_row(
            *(
                "" if pd.isna(value) else f"{value:.4g}" if isinstance(value, float) else str(value)
                for value in row
            )
        )
    return table


@command
def main() -> None:
    """The console command."""
    show(parse(Command, "launch/results.py").output_dir)


if __name__ == "__main__":
    main()
