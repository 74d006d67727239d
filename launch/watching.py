"""Jobs and runs as they go: what is queued, running and how far, finished, and failed with why."""

import sys
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from common import runs
from common.errors import INTERRUPTED_STATUS, UserError
from launch.console import WIDTH, table
from launch.slurm.unfinished import Unfinished, unfinished

COLUMNS = ("kind", "run", "job", "state", "steps", "to go")
CAPTION = "to go: of training, at the speed of the last lines; evaluations come on top"


def watch(output_dir: Path, every_s: float) -> None:
    """Show the runs of ``output_dir`` again and again, until none is queued or running.

    On a terminal they stay in place; elsewhere a snapshot is printed whenever something changed.
    Ctrl-C ends the watching alone, with status 130.
    """
    if not 0 < every_s < float("inf"):
        raise UserError(f"--every {every_s:g}: must be more than 0 seconds.")
    try:
        (_on_terminal if sys.stdout.isatty() else _printed)(output_dir, every_s)
    except KeyboardInterrupt:
        print("no longer watching; what is queued or running goes on", flush=True)
        sys.exit(INTERRUPTED_STATUS)
    print("nothing is queued or running; launch/results.py shows the tables", flush=True)


def _on_terminal(output_dir: Path, every_s: float) -> None:
    from rich.live import Live

    with Live(auto_refresh=False, vertical_overflow="crop") as live:
        for rows in _looks(output_dir, every_s):
            title = f"{output_dir.resolve() / 'runs'}, {datetime.now():%H:%M:%S}"
            if rows:
                live.update(table(title, COLUMNS, rows, CAPTION), refresh=True)


def _printed(output_dir: Path, every_s: float) -> None:
    from rich.console import Console

    console, before = Console(width=WIDTH), None
    for rows in _looks(output_dir, every_s):
        if rows and rows != before:
            console.print(table(f"{datetime.now():%Y-%m-%d %H:%M:%S}", COLUMNS, rows, CAPTION))
            sys.stdout.flush()
            before = rows


def _looks(output_dir: Path, every_s: float) -> Iterator[list[tuple[str, ...]]]:
    """The rows of each look; the last is the first without a run that lives."""
    lived: dict[tuple[str, str], Unfinished] = {}
    while True:
        found = {(run.kind, run.name): run for run in unfinished(output_dir)}
        lived |= {key: run for key, run in found.items() if run.live}
        gone = [run for key, run in lived.items() if key not in found]
        ordered = sorted(found.values(), key=lambda run: (not run.live, run.progress == ""))
        yield [*map(_row, ordered), *(_gone(run, output_dir) for run in gone)]
        if not any(run.live for run in ordered):
            return
        time.sleep(every_s)


def _row(run: Unfinished) -> tuple[str, ...]:
    state = f"{run.state}: {run.error}" if run.error else run.state
    to_go = "" if run.to_go_s is None else in_words(run.to_go_s)
    return run.kind, run.name, run.job, state, run.progress, to_go


def _gone(run: Unfinished, output_dir: Path) -> tuple[str, ...]:
    """A run that lived at an earlier look, and is finished or was deleted since."""
    done = runs.is_finished(runs.run_folder(output_dir, run.kind, run.name))
    return run.kind, run.name, run.job, "finished" if done else "deleted", "", ""


def in_words(seconds: float) -> str:
    """A time in its two largest units: ``2 d 4 h``, ``3 h 5 min``, ``12 min``, ``40 s``."""
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    units: Sequence[tuple[int, str]] = ((days, "d"), (hours, "h"), (minutes, "min"))
    first = next(index for index, (number, _) in enumerate(units) if number)
    return " ".join(f"{number} {unit}" for number, unit in units[first : first + 2] if number)
