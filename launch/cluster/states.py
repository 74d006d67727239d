"""Runs that are not finished: which there are, and what became of them."""

import fcntl
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import attempts, runs
from launch.cluster import slurm
from launch.cluster.records import RECORD, Record
from launch.cluster.slurm import State
from launch.tables import tables

KINDS = ("pretrain", *tables.TABLES)
TAIL_BYTES = 2**16  # of metrics.jsonl: more than its last line
NEVER = "DependencyNeverSatisfied"
WORDS = {
    "COMPLETED": "ended without a result",
    "BOOT_FAIL": "its node did not boot",
    "NODE_FAIL": "lost its node",
    "DEADLINE": "past its deadline",
    "OUT_OF_MEMORY": "out of memory",
    "TIMEOUT": "timed out",
    "PREEMPTED": "preempted for good",
    "CONFIGURING": "starting",
    "COMPLETING": "ending",
}


@dataclass(frozen=True)
class Unfinished:
    """A run that is not finished.

    Attributes:
        kind: ``pretrain``, ``transfer``, ...
        name: its folder's name.
        state: pending, running, failed, stopped, ...: one of Slurm's, or what its lock tells.
        job: the job it was given to last; empty if it was started in a process.
        progress: steps done, and how many there are to do where that is known.
        restarts: how often it was started again.
    """

    kind: str
    name: str
    state: str
    job: str
    progress: str
    restarts: int


def unfinished(output_dir: Path) -> list[Unfinished]:
    """All runs in ``output_dir`` without final metrics, kind by kind and by name."""
    found = [
        (folder, Record.read(folder))
        for kind in KINDS
        for folder in sorted((output_dir / "runs" / kind).glob("[!.]*/"))
        if not runs.is_finished(folder) and _is_run(folder)
    ]
    on_slurm = [record for _, record in found if record is not None and record.cluster == "slurm"]
    jobs = [job for record in on_slurm for job in (record.job_id, record.after) if job]
    known = slurm.states(jobs)
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
    on_slurm = record is not None and record.cluster == "slurm"  # another's job_id is no job's
    state = known.get(record.job_id) if record is not None and on_slurm else None
    after = record.after if record is not None else ""
    if state is not None and state.live:
        return in_words(state, after)
    if is_held(folder):
        return "running"
    if state is None or state == State(slurm.UNKNOWN):
        return "stopped"
    if waited_in_vain(state, known.get(after)):
        return in_words(State(state.name, NEVER), after)
    return in_words(state)


def in_words(state: State, after: str = "") -> str:
    """A state as people say it; ``after`` is the job that a pending one waits for."""
    words = WORDS.get(state.name, state.name.lower().replace("_", " "))
    if state.reason == NEVER:
        return (
            f"{words} ({f'job {after}' if after else 'a job'}, which it waits for, did not succeed)"
        )
    if state.reason == "Dependency" and after:
        return f"{words} (after job {after})"
    shown = state.name in ("PENDING", slurm.UNKNOWN) and state.reason
    return f"{words} ({state.reason})" if shown else words


def waited_in_vain(state: State, parent: State | None) -> bool:
    """Whether a job ended, or waits for ever, because the one it depends on failed."""
    if state.reason == NEVER:
        return True
    failed = parent is not None and parent.name in slurm.FINAL - {"COMPLETED"}
    return state.name == "CANCELLED" and failed


def is_held(folder: Path) -> bool:
    """Whether a job that is running holds the run folder; leaves no trace there."""
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
    """How many steps a run has logged; 0 if none."""
    row = _last_row(folder)
    return max(0, int(row.get("step", row.get("iteration", -1))) + 1)


def progress(folder: Path) -> str:
    """How far a run is: ``200 of 90000`` or ``200, epoch 2 of 100``; empty at its start."""
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
