"""Run folders ``runs/<kind>/<name>/``, whose names are the identities of runs.

The same command means the same folder. Its contents: ``identity.json``, the resolved
configuration (``config.json`` or ``config.yaml``), ``log.txt``, checkpoints, ``metrics.jsonl``,
``incarnations/``, a file for each time that it was started, and once the run is finished
``metrics.json``.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, Timeout

from common import attempts, locks
from common.errors import UserError
from common.files import write_json

FINAL = "metrics.json"
IDENTITY = "identity.json"
LOCK = ".lock"
GLANCE_S = 1  # for those who only look whether a job holds the folder
PATIENCE_S = 60  # for a job that is just ending, in one that Slurm has started
SEEDS = 2**32  # as many as NumPy knows
# What runs did before their identity said it.
UNSAID: dict[str, Any] = {"adapt_mlp_norms": False, "blur_sigma": 2.0, "datasets": []}
TO_COME = "weights_sha256"  # "" while a pre-training has yet to leave the weights

log = logging.getLogger("runs")


def short_hash(value: Any) -> str:
    """Eight hexadecimal digits that tell two JSON values apart, whatever the keys' order."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def check_seed(seed: int) -> None:
    """Raise a UserError for a seed that NumPy does not take."""
    if not 0 <= seed < SEEDS:
        limit = "at least 0" if seed < 0 else f"less than {SEEDS}"
        raise UserError(f"--seed {seed}: must be {limit}.")


def check_divides(name: str, batch_size: int, processes: int) -> None:
    """Raise a UserError, with the option's ``name``, unless a batch splits evenly."""
    if batch_size % processes or not batch_size:
        raise UserError(
            f"{name} {batch_size} does not split evenly over {processes} processes; choose a "
            "multiple, or another number of processes."
        )


def is_main_process() -> bool:
    """True in the process that will be :attr:`World.is_main`, before there is a process group."""
    return os.environ.get("RANK", "0") == "0"


def run_folder(output_dir: Path, kind: str, name: str) -> Path:
    """The absolute folder of a run; makes nothing."""
    return (output_dir / "runs" / kind / name).resolve()


def check_same(folder: Path, identity: dict[str, Any]) -> None:
    """Raise a UserError if ``folder`` holds another run, as one chosen by ``--name`` may."""
    if (folder / IDENTITY).exists():
        require_same(folder, json.loads((folder / IDENTITY).read_text()), identity)


def require_same(folder: Path, saved: dict[str, Any], identity: dict[str, Any]) -> None:
    """Raise a UserError with the fields in which the run that ``folder`` holds is another one."""
    now = json.loads(json.dumps(identity))
    saved = {name: UNSAID[name] for name in now.keys() & UNSAID.keys()} | saved
    differing = [
        f"{name} ({saved.get(name)!r} there, {now.get(name)!r} now)"
        for name in sorted(saved.keys() & now.keys())  # a newer version may know more fields
        if saved.get(name) != now.get(name)
        and not (name == TO_COME and "weights" in saved and "" in (saved[name], now[name]))
    ]
    if differing:
        raise UserError(
            f"{folder} holds another run: {', '.join(differing)}; use another --name, or --fresh "
            "to start again."
        )


def claim(folder: Path, identity: dict[str, Any]) -> None:
    """Write into ``folder`` whose it is; for the main process.

    The SHA-256 of weights that an earlier attempt found is kept.
    """
    path = folder / IDENTITY
    if identity.get(TO_COME) == "" and path.exists():
        identity = identity | {TO_COME: json.loads(path.read_text()).get(TO_COME, "")}
    write_json(path, identity)


def is_finished(folder: Path) -> bool:
    """True once the run has left its final metrics."""
    return (folder / FINAL).exists()


def finish(folder: Path, metrics: dict[str, Any]) -> None:
    """Mark the run as finished by writing its final metrics, atomically."""
    write_json(folder / FINAL, metrics)


def delete_empty(folder: Path) -> None:
    """Delete ``folder`` and those above it up to ``runs``, as far as they are empty."""
    with suppress(OSError):
        for path in (folder, *folder.parents):
            path.rmdir()
            if path.name == "runs":
                return


@contextmanager
def set_aside(folder: Path, wanted: bool) -> Iterator[None]:
    """Put an earlier run aside for ``--fresh``, and delete it once the block has ended.

    If the block raises before the new run wrote anything of its own, the earlier one is back.
    """
    aside = folder.with_name(f".{folder.name}.old")
    if not wanted or not folder.exists():
        yield
        return
    lock = hold(folder)
    if lock is not None:
        lock.release()
    shutil.rmtree(aside, ignore_errors=True)
    folder.rename(aside)
    try:
        yield
    except BaseException:
        if not folder.exists():
            aside.rename(folder)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def hold(folder: Path) -> BaseFileLock | None:
    """Take the folder for this job, until the lock is released or the process ends.

    A job that Slurm starts anew takes the folder over from its first copy, which may still run on
    a node that was lost. Where the file system knows no locks, nothing is held: None. A UserError
    if another running job holds the folder, or it cannot be written.
    """
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            return locks.take(path, 0)
        except Timeout:
            if attempts.is_of_this_job(folder):
                path.unlink(missing_ok=True)  # the first copy goes on holding what is no file now
            return locks.take(path, PATIENCE_S if attempts.this_slurm_job() else GLANCE_S)
    except Timeout as error:
        raise UserError(
            f"{folder} is in use by a job that is running; wait for it, end it, or choose another "
            "--name."
        ) from error
    except OSError as error:
        raise unwritable(folder, error) from error


def unwritable(folder: Path, error: OSError) -> UserError:
    """The error for a run folder that the system refuses to write."""
    return UserError(
        f"cannot write the run folder {folder}: {error.strerror or error}; choose another "
        "--output-dir."
    )


def finished_runs(output_dir: Path, kind: str) -> list[tuple[Path, dict[str, Any]]]:
    """Folder and final metrics of the finished runs of a kind, oldest first.

    Those whose metrics are not such a run's are left out, with a warning.
    """
    found = []
    for path in (output_dir / "runs" / kind).glob(f"[!.]*/{FINAL}"):  # not those set aside
        try:
            metrics = json.loads(path.read_text())
            if metrics["kind"] != kind:
                raise ValueError(metrics["kind"])
            found.append((path.stat().st_mtime_ns, path, metrics))
        except FileNotFoundError:  # deleted by another job's --fresh meanwhile
            continue
        except OSError as error:
            log.warning("%s is left out for now: %s", path, error.strerror or error)
        except (ValueError, KeyError, TypeError):
            log.warning("%s is left out: it does not hold the metrics of a %s run", path, kind)
    return [(path.parent, metrics) for _, path, metrics in sorted(found, key=lambda row: row[:2])]
