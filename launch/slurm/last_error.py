"""The last error of a job, in one line, from the files that its processes left."""

import re
from contextlib import suppress
from pathlib import Path

from launch.slurm.job import error_file
from launch.slurm.states import Record

TAIL_BYTES = 2**15  # of an output: longer than a traceback
LONGEST = 300  # characters
EXCEPTION = re.compile(r"(?:[A-Za-z_]\w*\.)*\w*(?:Error|Exception|Interrupt|Exit)(?:: .*|$)")
OOM = re.compile(r"\w+: error: .*(?:oom_kill|Out Of Memory).*")
REASON = re.compile(r"\w+: error: (?!.*exit code).*")  # Slurm's, but for what a status tells


def last_error(record: Record) -> str:
    """The job's own sentence; else the exception, or Slurm's error, that a process ended with.

    "" where none tells. Processes without a result come first: the others ended because of them.
    """
    from submitit.core.utils import JobPaths

    paths = [JobPaths(record.submitit, record.job_id, task) for task in range(record.tasks)]
    for each in paths:
        with suppress(OSError):
            return error_file(each).read_text()
    outputs = [each.stderr for each in sorted(paths, key=lambda each: each.result_pickle.exists())]
    for pattern in (EXCEPTION, OOM, REASON):
        for output in outputs:
            found = [line for line in _lines(output) if pattern.fullmatch(line)]
            if found:
                return found[-1][:LONGEST]
    return ""


def _lines(path: Path) -> list[str]:
    """The last lines of a file, without those before."""
    with suppress(OSError), path.open("rb") as file:
        file.seek(-min(TAIL_BYTES, file.seek(0, 2)), 2)
        return file.read().decode(errors="replace").splitlines()
    return []
