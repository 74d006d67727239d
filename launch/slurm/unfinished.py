"""Runs that are not finished: their states by jobs and locks, and their progress by logs.

The time to go is counted from the speed of the last lines of ``metrics.jsonl``, never from the
clock: a run that was preempted and resumed is not slower for the hours that it waited.
"""

import fcntl
import json
import os
import re
import statistics
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import attempts, runs
from launch.slurm.last_error import last_error
from launch.slurm.states import (
    NEVER,
    NO_ANSWER,
    RECORD,
    UNKNOWN,
    Record,
    State,
    states,
    waited_in_vain,
)

KINDS = ("pretrain", "transfer", "segmentation", "linear", "semi")
TAIL_BYTES = 2**16  # of metrics.jsonl: some dozens of lines
SPEEDS = 15  # lines whose median is the speed: the first after a start is of a cold machine


@dataclass(frozen=True)
class Unfinished:
    """A run that is not finished."""

    kind: str
    name: str
    state: str  # Slurm's word, or by the lock of the folder
    job: str  # that it was given to last; empty if it was started in a process
    progress: str  # as of :func:`progress`
    restarts: int  # starts after the first
    live: bool = False  # it waits, runs, or will run again, as far as is known
    to_go_s: float | None = None  # seconds of training to come, of one that is live
    error: str = ""  # its job's last, of one that is not


def unfinished(output_dir: Path) -> list[Unfinished]:
    """All runs in ``output_dir`` without final metrics, kind by kind and by name."""
    found = [
        (folder, Record.read(folder))
        for kind in KINDS
        for folder in sorted((output_dir / "runs" / kind).glob("[!.]*/"))
        if not runs.is_finished(folder) and _is_run(folder)
    ]
    on_slurm = [record for _, record in found if record is not None and record.cluster == "slurm"]
    known = states(job for record in on_slurm for job in (record.job_id, record.after) if job)
    return [
        _described(folder, record, known)
        for folder, record in found
        if folder.exists() and not runs.is_finished(folder)  # it may have ended meanwhile
    ]


def _described(folder: Path, record: Record | None, known: dict[str, State]) -> Unfinished:
    state, live = _state(folder, record, known)
    return Unfinished(
        folder.parent.name,
        folder.name,
        state,
        record.job_id if record is not None else "",
        progress(folder),
        max(attempts.count(folder) - 1, 0),
        live,
        to_go_s(folder) if live else None,
        "" if live or record is None else last_error(record),
    )


def _is_run(folder: Path) -> bool:
    marks = (RECORD, runs.IDENTITY, runs.LOCK, "submitit")
    return any((folder / mark).exists() for mark in marks)


def _state(folder: Path, record: Record | None, known: dict[str, State]) -> tuple[str, bool]:
    """The state in words, and whether the run lives.

    Slurm's word if the job lives; else the lock's if it is held; else how the job ended.
    """
    if record is None or record.cluster != "slurm":
        return ("running", True) if is_held(folder) else ("stopped", False)
    state = known[record.job_id]
    if state.live:
        return state.in_words(record.after), state.reason != NEVER
    if is_held(folder):
        return "running", True
    if state == State(UNKNOWN):
        return "stopped", False
    if waited_in_vain(state, known.get(record.after)):
        state = State(state.name, NEVER)
    return state.in_words(record.after), state.reason == NO_ANSWER


def is_held(folder: Path) -> bool:
    """True if a running job holds the run folder; leaves no trace there."""
    try:
        file = open(folder / runs.LOCK, "rb")  # noqa: SIM115
    except OSError:
        return False
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two may look at once
        except (BlockingIOError, PermissionError):
            return True
        except OSError:  # a file system without locks
            return False
    return False


def steps_done(folder: Path) -> int:
    """Number of steps that a run has logged."""
    row = _last_row(folder)
    return max(0, int(row.get("step", row.get("iteration", -1))) + 1)


def progress(folder: Path) -> str:
    """Progress of a run: ``200 of 90000`` or ``200, epoch 2 of 100``; empty at its start."""
    row = _last_row(folder)
    if not row:
        return ""
    done = str(steps_done(folder))
    iterations = _iterations(folder)
    if iterations is not None:
        return f"{done} of {iterations}"
    epochs = re.search(r'^  "epochs": (\d+)', _text(folder / "config.json"), re.MULTILINE)
    if epochs and "epoch" in row:
        return f"{done}, epoch {max(0, row['epoch']) + 1} of {epochs[1]}"
    return done


def to_go_s(folder: Path) -> float | None:
    """Seconds of training to come at the median speed of the last lines; None if not known.

    Evaluations come on top of them.
    """
    rows = _last_rows(folder)
    timed = [row for row in rows if row.get("images_per_s") and "eta_s" in row][-SPEEDS:]
    if timed:
        speed = statistics.median(row["images_per_s"] for row in timed)
        return float(timed[-1]["eta_s"] * timed[-1]["images_per_s"] / speed)
    seconds, iterations = [row["time"] for row in rows if "time" in row], _iterations(folder)
    if not seconds or iterations is None:
        return None
    return max(0, iterations - steps_done(folder)) * statistics.median(seconds[-SPEEDS:])


def _iterations(folder: Path) -> int | None:
    """The iterations of a detector's or a segmentation network's run."""
    found = re.search(r"^\s+MAX_ITER: (\d+)$", _text(folder / "config.yaml"), re.MULTILINE)
    return int(found[1]) if found else None


def _last_row(folder: Path) -> dict[str, Any]:
    """The last whole line of ``metrics.jsonl``."""
    return next(iter(_last_rows(folder)[-1:]), {})


def _last_rows(folder: Path) -> list[dict[str, Any]]:
    """The last whole lines of ``metrics.jsonl``, without reading all before."""
    try:
        with open(folder / "metrics.jsonl", "rb") as file:
            file.seek(-min(TAIL_BYTES, file.seek(0, os.SEEK_END)), os.SEEK_END)
            lines = file.read().splitlines()
    except OSError:
        return []
    rows = []
    for line in lines:
        with suppress(ValueError):  # cut short
            row = json.loads(line)
            if isinstance(row, dict) and ("step" in row or "iteration" in row):
                rows.append(row)
    return rows


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
