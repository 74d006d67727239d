"""Runs that are not finished: their states by jobs and locks, and their progress by logs."""

import fcntl
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import attempts, runs
from launch.slurm.states import NEVER, RECORD, UNKNOWN, Record, State, states, waited_in_vain

KINDS = ("pretrain", "transfer", "segmentation", "linear", "semi")
TAIL_BYTES = 2**16  # of metrics.jsonl: more than its last line


@dataclass(frozen=True)
class Unfinished:
    """A run that is not finished."""

    kind: str
    name: str
    state: str  # Slurm's word, or by the lock of the folder
    job: str  # that it was given to last; empty if it was started in a process
    progress: str  # as of :func:`progress`
    restarts: int  # starts after the first


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
        Unfinished(
            folder.parent.name,
            folder.name,
            _state(folder, record, known),
            record.job_id if record is not None else "",
            progress(folder),
            max(attempts.count(folder) - 1, 0),
        )
        for folder, record in found
        if folder.exists() and not runs.is_finished(folder)  # it may have ended meanwhile
    ]


def _is_run(folder: Path) -> bool:
    marks = (RECORD, runs.IDENTITY, runs.LOCK, "submitit")
    return any((folder / mark).exists() for mark in marks)


def _state(folder: Path, record: Record | None, known: dict[str, State]) -> str:
    """Slurm's word if the job lives; else the lock's if it is held; else how the job ended."""
    if record is None or record.cluster != "slurm":
        return "running" if is_held(folder) else "stopped"
    state = known[record.job_id]
    if state.live:
        return state.in_words(record.after)
    if is_held(folder):
        return "running"
    if state == State(UNKNOWN):
        return "stopped"
    if waited_in_vain(state, known.get(record.after)):
        state = State(state.name, NEVER)
    return state.in_words(record.after)


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
    iterations = re.search(r"^\s+MAX_ITER: (\d+)$", _text(folder / "config.yaml"), re.MULTILINE)
    if iterations:
        return f"{done} of {iterations[1]}"
    epochs = re.search(r'^  "epochs": (\d+)', _text(folder / "config.json"), re.MULTILINE)
    if epochs and "epoch" in row:
        return f"{done}, epoch {max(0, row['epoch']) + 1} of {epochs[1]}"
    return done


def _last_row(folder: Path) -> dict[str, Any]:
    """The last whole line of ``metrics.jsonl``, without reading those before."""
    try:
        with open(folder / "metrics.jsonl", "rb") as file:
            file.seek(-min(TAIL_BYTES, file.seek(0, os.SEEK_END)), os.SEEK_END)
            lines = file.read().splitlines()
    except OSError:
        return {}
    for line in reversed(lines):
        try:
            row = json.loads(line)
        except ValueError:  # cut short
            continue
        if isinstance(row, dict) and ("step" in row or "iteration" in row):
            return row
    return {}


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
