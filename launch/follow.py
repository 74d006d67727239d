"""Live output of a job that runs elsewhere: its log lines, a progress bar, how it ended."""

import re
import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from common.errors import UserError
from common.metrics import read_lines
from launch.jobs import Job

POLL_S = 0.3


def follow(handle: Any, job: Job, cancel: bool) -> None:
    """Print what a submitit job's main process prints, until the job has ended.

    Args:
        handle: the submitit job.
        job: what it runs.
        cancel: whether Ctrl-C, or the failure of one process, ends the job.

    Raises:
        UserError: if the job failed, with its own sentence where it has one.
    """
    tasks = [handle.task(i) for i in range(handle.num_tasks)]
    output = Path(tasks[0].paths.stdout)
    shown = 0
    bar = tqdm(total=job.steps, unit="step", disable=not sys.stderr.isatty())
    try:
        while True:
            ended = handle.done(force_check=cancel)
            shown = _print_from(output, shown)
            _advance(bar, job.folder)
            if ended:
                break
            if cancel and any(_has_failed(task) for task in tasks):
                handle.cancel(check=False)  # the other processes wait for the dead one
            time.sleep(POLL_S)
    except KeyboardInterrupt:
        if cancel:
            handle.cancel(check=False)
            raise
        print(
            f"no longer watching; job {handle.job_id} goes on: squeue -j {handle.job_id}, and its "
            f"output is {output}"
        )
        return
    finally:
        bar.close()
    _raise_failure(handle, tasks)


def _advance(bar: tqdm, folder: Path) -> None:
    if not bar.disable:
        rows = read_lines(folder / "metrics.jsonl")[-1:]
        steps = [row.get("step", row.get("iteration", -1)) + 1 for row in rows]
        bar.update(max([bar.n, *steps]) - bar.n)


def _has_failed(task: Any) -> bool:
    path = Path(task.paths.result_pickle)
    return path.exists() and task._get_outcome_and_result()[0] == "error"


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


def _raise_failure(handle: Any, tasks: list[Any]) -> None:
    errors = [str(error) for error in (task.exception() for task in tasks) if error is not None]
    if not errors:
        return
    sentences = [s for text in errors for s in re.findall(r"common\.errors\.UserError: (.+)", text)]
    if sentences:
        raise UserError(sentences[-1].strip())
    for task in tasks:
        stderr = Path(task.paths.stderr)
        if stderr.exists() and stderr.read_text(errors="replace").strip():
            print(stderr.read_text(errors="replace")[-4000:], file=sys.stderr)
            break
    else:
        print(errors[0][-4000:], file=sys.stderr)
    raise UserError(
        f"job {handle.job_id} failed; its output is in {handle.paths.folder}, and the same "
        "command resumes it."
    )
