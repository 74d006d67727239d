"""One submission: what it writes, whose a run folder is from then on, and nothing if it fails."""

import io
import logging
import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from submitit.core.utils import FailedJobError, FailedSubmissionError

from common import runs
from common.errors import UserError
from common.provenance import ROOT
from launch.cluster import site
from launch.cluster.executor import job_environment, local_executor, slurm_executor
from launch.cluster.jobs import Job
from launch.cluster.records import Record
from launch.cluster.resources import Resources
from launch.cluster.snapshot import snapshot


def start_here(job: Job, resources: Resources) -> Any:
    """Start a job on this machine; its handle."""
    # Its number is that of a process, and may be that of an earlier job.
    files = job.folder / "submitit" / f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}-%j"
    try:
        executor = local_executor(job.folder.name, files, resources)
        identity = job.config.identity()
        with job_environment(ROOT):
            handle = executor.submit(job)
        _record([job], [handle], [identity], "local")
    except OSError as error:
        raise runs.unwritable(job.folder, error) from error
    return handle


def submit(jobs: Sequence[Job], resources: Resources, after: str) -> list[Any]:
    """Submit one job, or several as one array; their handles.

    Args:
        jobs: all of one ``output_dir``, into which no other command submits meanwhile.
        resources: of each job.
        after: the Slurm job that must succeed first, "" for none.

    Raises:
        UserError: if Slurm refuses; then nothing is left behind.
    """
    output_dir, name = jobs[0].output_dir, jobs[0].folder.name
    folder = jobs[0].folder / "submitit"
    if len(jobs) > 1:
        name = f"{name}-and-{len(jobs) - 1}-more"
        folder = output_dir / "runs" / "arrays" / name
    logging.getLogger("submitit").setLevel(logging.ERROR)
    if ignored := site.ignored():
        print(f"not used: {', '.join(ignored)}; there are options for what they say", flush=True)
    try:
        run_folders = [job.folder for job in jobs]
        with _undone(run_folders, [folder]), snapshot(output_dir) as code:
            executor = slurm_executor(name, folder / "%j", resources, code, after)
            calls = [replace(job, max_requeues=resources.max_requeues) for job in jobs]
            identities = [call.config.identity() for call in calls]  # before their jobs are there
            # What sbatch says is in the error; submitit prints it as well.
            with job_environment(code), redirect_stderr(io.StringIO()):
                if len(calls) == 1:
                    handles = [executor.submit(calls[0])]
                else:
                    with executor.batch():
                        handles = [executor.submit(call) for call in calls]
            _record(jobs, handles, identities, "slurm", after)
            return handles
    except (FailedJobError, FailedSubmissionError) as error:
        raise UserError(
            f"Slurm refused the job: {_sentence(str(error))}; sinfo -o '%P %l %D %c %m %G' shows "
            "what there is."
        ) from error
    except OSError as error:
        raise runs.unwritable(jobs[0].folder, error) from error


def _sentence(said: str) -> str:
    lines = (re.sub(r"^sbatch: (error: )?", "", line).strip(" .") for line in said.splitlines())
    return "; ".join(filter(None, lines))


def _record(
    jobs: Sequence[Job],
    handles: Sequence[Any],
    identities: Sequence[dict[str, Any]],
    cluster: str,
    after: str = "",
) -> None:
    """Say in each run folder whose it is; if that fails, the jobs are ended."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    typed = shlex.join(["python", *sys.argv])
    try:
        for job, handle, identity in zip(jobs, handles, identities, strict=True):
            told = (cluster, handle.job_id, handle.num_tasks, str(handle.paths.folder))
            Record(*told, now, after, typed, identity).write(job.folder)
    except BaseException:
        for handle in handles:
            handle.cancel(check=False)
        raise


@contextmanager
def _undone(run_folders: Sequence[Path], others: Sequence[Path]) -> Iterator[None]:
    """If the block raises, delete the run folders that it made, and what it put into ``others``."""
    above = {path for folder in (*run_folders, *others) for path in folder.parents}
    made = sorted((path for path in above if not path.exists()), key=str, reverse=True)
    new = [folder for folder in run_folders if not folder.exists()]
    before = {path for folder in others if folder.exists() for path in (folder, *folder.iterdir())}
    try:
        yield
    except BaseException:
        inside = (path for folder in others if folder.exists() for path in folder.iterdir())
        for path in (*{*inside} - before, *{*others} - before, *new):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        for path in made:
            with suppress(OSError):
                path.rmdir()
        raise
