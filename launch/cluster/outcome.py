"""What the processes of a submitit job left: results, tracebacks, output."""

import pickle
import re
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from submitit.core.utils import pickle_load

from common import attempts
from common.errors import UserError

RESULT_S = 5.0  # for a result to arrive over a network file system
PAUSE_S = 0.3
SENTENCE = re.compile(r"common\.errors\.UserError: (.+)")


def tasks_of(handle: Any) -> list[Any]:
    return [handle.task(i) for i in range(handle.num_tasks)]


def error_of(task: Any, folder: Path | None = None) -> str | None:
    """The traceback that a process ended with, empty if it ended well; None if it left nothing.

    What is older than the newest attempt of the run in ``folder`` does not count.
    """
    path = Path(task.paths.result_pickle)
    marks = (folder / attempts.FOLDER).glob("*.json") if folder is not None else ()
    try:
        if path.stat().st_mtime_ns < max((m.stat().st_mtime_ns for m in marks), default=0):
            return None
        outcome, result = pickle_load(path)
    except (OSError, EOFError, pickle.UnpicklingError):
        return None
    return str(result) if outcome == "error" else ""


def wait_for_result(task: Any) -> None:
    """Wait a little for a process's result, which a network file system may show late."""
    until = time.monotonic() + RESULT_S
    folder, path = Path(task.paths.folder), Path(task.paths.result_pickle)
    while not path.exists() and time.monotonic() < until:
        with suppress(OSError):
            folder.chmod(folder.stat().st_mode)  # a change makes the client ask the server
        time.sleep(PAUSE_S)


def wrote_anything(tasks: list[Any]) -> bool:
    paths = (path for task in tasks for path in (task.paths.stdout, task.paths.stderr))
    return any(Path(path).exists() for path in paths)


def raise_with(ending: str, handle: Any, errors: list[str | None]) -> NoReturn:
    """The job's own sentence if there is one; else what it printed last, and where the rest is.

    Args:
        ending: how it ended, in a few words.
        handle: the submitit job.
        errors: what :func:`error_of` says of each of its processes.
    """
    for error in filter(None, errors):
        for sentence in reversed(SENTENCE.findall(error)):
            raise UserError(sentence.strip())
    # Those that died by themselves first: the others were ended because of them.
    ordered = sorted(zip(tasks_of(handle), errors, strict=True), key=lambda pair: not pair[1])
    for task, trace in ordered:
        stderr = Path(task.paths.stderr)
        text = stderr.read_text(errors="replace").strip() if stderr.exists() else ""
        if text or trace:
            print((text or trace or "")[-4000:], file=sys.stderr)
            break
    raise UserError(
        f"{ending}; its output is in {handle.paths.folder}, and the same command resumes it."
    )
