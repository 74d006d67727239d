"""Rebuild and show the results tables, and what is not finished: ``python launch/results.py``."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table as RichTable

if __name__ == "__main__":  # not launch/, where ``import pretrain`` would find another file
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from common import runs
from common.errors import UserError, command
from common.files import atomic_write
from launch import tables
from launch.cluster.states import Unfinished, unfinished
from launch.options import parse
from launch.summary import markdown, summarise

MARKDOWN = "summary.md"


@dataclass(frozen=True)
class Command:
    """Rebuild results/ from the finished runs, and print it.

    A CSV for each kind of job has one row a run; what is printed, and summary.md, has one row an
    experiment: the mean and standard deviation over seeds, and the published figure beside it.
    Runs that are not finished follow: pending, running, failed or stopped.

    Attributes:
        output_dir: Folder that holds runs/ and results/.
    """

    output_dir: Path = Path()


def show(output_dir: Path) -> None:
    """Rebuild the tables, write the summary, and print it and the runs that are not finished.

    Raises:
        UserError: if there is neither a finished evaluation nor an unfinished run.
    """
    frames = {table.kind: tables.read(output_dir, table) for table in tables.TABLES}
    summaries = {kind: summarise(kind, frame) for kind, frame in frames.items() if len(frame)}
    rest = unfinished(output_dir)
    pretrained = runs.finished_runs(output_dir, "pretrain")
    if not summaries and not rest and not pretrained:
        raise UserError(
            f"no run in {output_dir.resolve() / 'runs'}; start one with launch/pretrain.py or "
            "launch/transfer.py, or give --output-dir."
        )
    console = Console(width=None if sys.stdout.isatty() else 200)
    if summaries:
        _show_finished(output_dir, summaries, console)
    if pretrained:
        console.print(_pretrained(pretrained))
    if rest:
        console.print(_unfinished(rest))


def _show_finished(output_dir: Path, summaries: dict[str, pd.DataFrame], console: Console) -> None:
    tables.rebuild(output_dir)
    folder = output_dir / "results"
    with atomic_write(folder / MARKDOWN, "w") as file:
        file.write("\n".join(markdown(kind, frame) for kind, frame in summaries.items()))
    for kind, frame in summaries.items():
        console.print(_rich(kind, frame))
        console.print(f"one row a run, all columns: {folder / kind}.csv")
    console.print(f"this in Markdown: {folder / MARKDOWN}")


def _pretrained(finished: Sequence[tuple[Path, dict[str, Any]]]) -> RichTable:
    table = RichTable(title="finished pre-training")
    for name in ("run", "method", "epochs", "loss", "best kNN", "hours", "restarts"):
        table.add_column(name, overflow="fold")
    for folder, metrics in finished:
        knn = metrics.get("best_knn") or ""
        table.add_row(
            str(folder),
            f"{metrics['title']} {metrics['norm']}",
            str(metrics["epochs"]),
            f"{metrics['loss']:.3f}",
            f"{knn:.1f}" if knn else "",
            f"{metrics['wall_time_s'] / 3600:.1f}",
            str(metrics.get("restarts") or ""),
        )
    return table


def _unfinished(rest: Sequence[Unfinished]) -> RichTable:
    table = RichTable(
        title="unfinished runs",
        caption="The command that started a run resumes it, unless a job is pending or running; a "
        "job's is in job.json in the run folder.",
    )
    for name in ("kind", "run", "state", "job", "steps", "restarts"):
        table.add_column(name, overflow="fold")
    for run in rest:
        table.add_row(run.kind, run.name, run.state, run.job, run.progress, str(run.restarts or ""))
    return table


def _rich(kind: str, summary: pd.DataFrame) -> RichTable:
    shown = summary.dropna(axis=1, how="all")
    table = RichTable(title=kind)
    for name in shown:
        table.add_column(str(name), overflow="fold")
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
