"""Live output of a job that runs elsewhere: its log lines, a progress bar, how it ended."""

import re
import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from common.errors import UserError

POLL_S = 0.3


def follow(handle: Any, folder: Path, cancel: bool) -> None:
    """Print what a submitit job's main process prints, until the job has ended.

    Args:
        handle: the submitit job.
        folder: its run folder, for the progress bar and for messages.
        cancel: whether Ctrl-C ends the job, rather than only the watching.

    Raises:
        UserError: if the job failed, with its own sentence where it has one.
    """
    main = handle.task(0) if hasattr(handle, "task") else handle
    output = Path(main.paths.stdout)
    shown = 0
    try:
        while True:
            ended = handle.done(force_check=True)
            shown = _print_from(output, shown)
            if ended:
                break
            time.sleep(POLL_S)
    except KeyboardInterrupt:
        if cancel:
            handle.cancel(check=False)
            raise
        print(
            f"no longer watching; job {handle.job_id} goes on, and the same command with "
            f"--wait comes back to it: {folder}"
        )
        return
    _raise_failure(handle, folder)


def _print_from(path: Path, position: int) -> int:
    """Print the whole lines of ``path`` after ``position``, leaving out submitit's own."""
    if not path.exists():
        return position
    with path.open("rb") as file:
        file.seek(position)
        text = file.read()
    whole = text[: text.rfind(b"\n") + 1]
    for line in whole.decode(errors="replace").splitlines():
        if not line.startswith("submitit "):
            tqdm.write(line, file=sys.stdout)
    sys.stdout.flush()
    return position + len(whole)


def _raise_failure(handle: Any, folder: Path) -> None:
    error = handle.exception()
    if error is None:
        return
    text = str(error)
    sentence = re.findall(r"common\.errors\.UserError: (.+)", text)
    if sentence:
        raise UserError(sentence[-1].strip())
    stderr = Path(handle.paths.stderr)
    tail = stderr.read_text(errors="replace")[-4000:] if stderr.exists() else text[-4000:]
    print(tail, file=sys.stderr)
    raise UserError(
        f"job {handle.job_id} failed; its output is in {folder / 'submitit'}, and "
        "the same command resumes it."
    )
