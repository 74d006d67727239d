"""Rebuild and show the results tables, and what is not finished: ``python launch/results.py``."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # not launch/, where ``import pretrain`` would find another file
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from common import runs
from common.errors import UserError, command
from common.files import atomic_write
from launch.console import print_table
from launch.options import parse
from launch.slurm.unfinished import unfinished
from launch.tables.tables import TABLES, read, rebuild
from launch.watching import watch

MARKDOWN = "summary.md"


@dataclass(frozen=True)
class Command:
    """Rebuild results/ from the finished runs, and print it.

    A CSV for each kind of job has one row a run; what is printed, and summary.md, has one row an
    experiment: the mean and standard deviation over seeds, and the published figure beside it.
    Runs that are not finished follow: pending, running, failed or stopped.

    Attributes:
        output_dir: Folder that holds runs/ and results/.
        watch: Show what is queued and running, how far it is, and what failed, until all has ended.
        every: Seconds between two looks of --watch.
    """

    output_dir: Path = Path()
    watch: bool = False
    every: float = 5.0


def show(output_dir: Path) -> None:
    """Rebuild the tables, write the summary, and print it and the runs that are not finished."""
    from launch.tables.summary import markdown, summarise, texts

    frames = {kind: read(output_dir, kind) for kind in TABLES}
    summaries = {kind: summarise(kind, frame) for kind, frame in frames.items() if len(frame)}
    rest = unfinished(output_dir)
    pretrained = runs.finished_runs(output_dir, "pretrain")
    if not summaries and not rest and not pretrained:
        raise UserError(
            f"no run in {output_dir.resolve() / 'runs'}; start one with launch/pretrain.py or "
            "launch/transfer.py, or give --output-dir."
        )
    if summaries:
        rebuild(output_dir)
        folder = output_dir / "results"
        with atomic_write(folder / MARKDOWN, "w") as file:
            file.write("\n".join(markdown(kind, frame) for kind, frame in summaries.items()))
        for kind, frame in summaries.items():
            shown = texts(frame)
            print_table(kind, list(shown), shown.itertuples(index=False))
            print(f"one row a run, all columns: {folder / kind}.csv")
        print(f"this in Markdown: {folder / MARKDOWN}")
    if pretrained:
        columns = ["run", "method", "epochs", "loss", "best kNN", "hours", "restarts"]
        rows = [_pretrained(folder, metrics) for folder, metrics in pretrained]
        print_table("finished pre-training", columns, rows)
    if rest:
        columns = ["kind", "run", "state", "job", "steps", "restarts"]
        rows = [[r.kind, r.name, r.state, r.job, r.progress, str(r.restarts or "")] for r in rest]
        caption = (
            "The command that started a run resumes it, unless a job is pending or running; a "
            "job's is in job.json in the run folder."
        )
        print_table("unfinished runs", columns, rows, caption)


def _pretrained(folder: Path, metrics: dict[str, Any]) -> list[str]:
    knn = metrics.get("best_knn")
    return [
        str(folder),
        f"{metrics['title']} {metrics['norm']}",
        str(metrics["epochs"]),
        f"{metrics['loss']:.3f}",
        f"{knn:.1f}" if knn else "",
        f"{metrics['wall_time_s'] / 3600:.1f}",
        str(metrics.get("restarts") or ""),
    ]


@command
def main() -> None:
    """The console command."""
    options = parse(Command, "launch/results.py")
    if options.watch:
        watch(options.output_dir, options.every)
    else:
        show(options.output_dir)


if __name__ == "__main__":
    main()
