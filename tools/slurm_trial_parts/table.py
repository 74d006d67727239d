"""What the trial showed, as a table and as CSV."""

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.table import Table

from common.files import atomic_write


@dataclass(frozen=True)
class Row:
    """One thing that was tried.

    Attributes:
        trial: what of this project.
        what: happened to it.
        starts: how often the run was started; None where that says nothing.
        requeues: how often Slurm started a job of it anew.
        seconds: from the command to the end.
        undisturbed_s: the same without a fault.
        outcome: what came of it.
        ok: whether it is what should have.
    """

    trial: str
    what: str
    outcome: str
    ok: bool
    starts: int | None = None
    requeues: int | None = None
    seconds: float | None = None
    undisturbed_s: float | None = None


COLUMNS = "trial what starts requeues seconds undisturbed_s outcome ok".split()


def rich_table(rows: Sequence[Row]) -> Table:
    """All rows, to be printed."""
    table = Table(title="Slurm trial")
    for name in COLUMNS:
        right = name in ("starts", "requeues", "seconds", "undisturbed_s")
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(_text, _cells(row)), style=None if row.ok else "bold red")
    return table


def write(path: Path, rows: Sequence[Row]) -> None:
    """Write the rows as CSV."""
    with atomic_write(path, "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([_text(cell) for cell in _cells(row)] for row in rows)


def _cells(row: Row) -> list[object]:
    values = asdict(row)
    return [values[name] for name in COLUMNS]


def _text(cell: object) -> str:
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "yes" if cell else "NO"
    return f"{cell:.0f}" if isinstance(cell, float) else str(cell)
