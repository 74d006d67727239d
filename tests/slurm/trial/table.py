"""The results of the trial, as a table and as CSV."""

import csv
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from launch.console import print_table


@dataclass(frozen=True)
class Row:
    """One thing that was tried; ``ok`` if its outcome is what it should be."""

    trial: str
    what: str
    starts: int | None  # of the run; None where that says nothing
    requeues: int | None  # of its jobs, by Slurm
    seconds: float | None  # from the command to the end
    undisturbed_s: float | None  # the same without a fault
    outcome: str
    ok: bool

    def cells(self) -> list[str]:
        """The row as text."""
        return [_text(value) for value in astuple(self)]


COLUMNS = [one.name for one in fields(Row)]


def show(rows: Sequence[Row]) -> None:
    """Print all rows."""
    print_table("Slurm trial", COLUMNS, [row.cells() for row in rows])


def write(path: Path, rows: Sequence[Row]) -> None:
    """Write the rows as CSV."""
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *(row.cells() for row in rows)])


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "NO"
    return f"{value:.0f}" if isinstance(value, float) else str(value)
