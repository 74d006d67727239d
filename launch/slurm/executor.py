"""Jobs for submitit: resources, environment, and the snapshot of the code that they run."""

import hashlib
import io
import logging
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError

import demo
from common import runs
from common.errors import UserError
from common.provenance import COMMIT, ROOT, SOURCES, git_commit
from launch.slurm import site
from launch.slurm.job import Job
from launch.slurm.resources import (
    TIMEOUT_MIN,
    Resources,
    gpus_of_gres,
    gpus_per_node,
    sbatch_options,
    tasks_per_node,
)
from launch.slurm.states import Record

LOCAL_TIMEOUT_MIN = 60 * 24 * 365
# clean_env takes them away too: where the cluster is must stay, and the signal that a job expects.
KEPT = ("SLURM_CONF", "SUBMITIT_PREEMPT_SIGNAL")
ENDINGS = (".csv", ".json", ".py", ".txt", ".yaml", ".yml")  # of files that jobs need
OTHERS = ("LICENSE", "pyproject.toml")


def start_here(job: Job, resources: Resources) -> Any:
    """Start a job on this machine; return its handle."""
    # Its number is that of a process, and may be that of an earlier job.
    files = job.folder / "submitit" / f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}-%j"
    try:
        executor = submitit.AutoExecutor(folder=files, cluster="local")
        gpus = shlex.quote(visible_gpus(gpus_per_node(resources)))
        # Commands that a shell runs before it starts submitit's controller, which it never does.
        ours = [sys.executable, "-P", "-m", "launch.slurm.controller", str(files)]
        executor.update_parameters(
            name=job.folder.name,
            tasks_per_node=tasks_per_node(resources),
            timeout_min=resources.timeout_min or LOCAL_TIMEOUT_MIN,
            local_setup=[f"export CUDA_VISIBLE_DEVICES={gpus}", f"exec {shlex.join(ours)}"],
        )
        with job_environment(ROOT):
            handle = executor.submit(job)
        _record([job], [handle], "local")
    except OSError as error:
        raise runs.unwritable(job.folder, error) from error
    return handle


def submit(jobs: Sequence[Job], resources: Resources, after: str) -> list[Any]:
    """Submit one job, or several as one array, to Slurm; return their handles.

    If Slurm refuses, nothing is left behind. ``after`` is the job that must succeed first, or "".
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
        with _undone(jobs, folder), snapshot(output_dir / "runs" / "code") as code:
            executor = _slurm_executor(name, folder / "%j", resources, code, after)
            calls = [replace(job, max_requeues=resources.max_requeues) for job in jobs]
            # submitit prints on stderr what its error says as well.
            with job_environment(code), redirect_stderr(io.StringIO()):
                if len(calls) == 1:
                    handles = [executor.submit(calls[0])]
                else:
                    with executor.batch():
                        handles = [executor.submit(call) for call in calls]
            _record(jobs, handles, "slurm", after)
            return handles
    except (FailedJobError, FailedSubmissionError) as error:
        lines = (re.sub(r"^sbatch: (error: )?", "", s).strip(" .") for s in f"{error}".splitlines())
        raise UserError(
            f"Slurm refused the job: {'; '.join(filter(None, lines))}; "
            "sinfo -o '%P %l %D %c %m %G' shows what there is."
        ) from error
    except OSError as error:
        raise runs.unwritable(jobs[0].folder, error) from error


def _slurm_executor(
    name: str, folder: Path, resources: Resources, code: Path, after: str
) -> submitit.AutoExecutor:
    if shutil.which("srun") is None:
        raise UserError("sbatch is on the PATH but srun is not; jobs need both.")
    python = shlex.quote(sys.executable)
    hold = shlex.quote(str(code / "launch" / "slurm" / "hold_signals.py"))
    executor = submitit.AutoExecutor(
        folder=folder,
        cluster="slurm",
        slurm_max_num_timeout=resources.max_requeues,
        # -P: the working folder, which may be the checkout, does not come before the snapshot.
        slurm_python=f"{python} -I -S {hold} {python} -P",
    )
    typed = gpus_of_gres(resources.slurm) is not None
    more: dict[str, Any] = {"requeue": True, **sbatch_options(resources.slurm)}
    if after:  # which otherwise waits for ever if that job failed
        more["kill-on-invalid-dep"] = "yes"
    executor.update_parameters(
        name=name,
        nodes=resources.nodes,
        tasks_per_node=tasks_per_node(resources),
        timeout_min=resources.timeout_min or TIMEOUT_MIN,
        gpus_per_node=None if typed else gpus_per_node(resources) or None,
        cpus_per_task=resources.cpus_per_gpu,
        mem_gb=resources.mem_gb,
        slurm_partition=resources.partition,
        slurm_account=resources.account,
        slurm_qos=resources.qos,
        slurm_constraint=resources.constraint,
        slurm_exclude=resources.exclude,
        slurm_comment=resources.comment,
        slurm_dependency=f"afterok:{after}" if after else None,
        slurm_array_parallelism=resources.array_parallelism,
        slurm_signal_delay_s=resources.signal_delay_s,
        slurm_additional_parameters=more,
        slurm_setup=[
            f"export {name}={shlex.quote(value)}" for name, value in site.environment().items()
        ],
        # srun takes neither from sbatch; one dead process ends the job.
        slurm_srun_args=[f"--cpus-per-task={resources.cpus_per_gpu}", "--kill-on-bad-exit=1"],
    )
    # submitit's is "submitit", and a site that checks WCKeys knows none of that name.
    executor._executor.update_parameters(wckey=None)
    return executor


def visible_gpus(count: int) -> str:
    """The first ``count`` of the GPUs that CUDA_VISIBLE_DEVICES leaves us, as it names them."""
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = map(str, range(count)) if allowed is None else map(str.strip, allowed.split(","))
    return ",".join([*names][:count])


@contextmanager
def job_environment(code: Path) -> Iterator[None]:
    """Hide our own rank and rendezvous from jobs, and put ``code`` first on their path."""
    added = {name: os.environ[name] for name in KEPT if name in os.environ}
    # Its default is beside the code, and that is not where it was any more.
    added[demo.datasets.ENVIRONMENT] = str(demo.default_root())
    path = (str(code), os.environ.get("PYTHONPATH"))
    added["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    with submitit.helpers.clean_env(), submitit.helpers.environment_variables(**added):
        yield


def _record(jobs: Sequence[Job], handles: Sequence[Any], cluster: str, after: str = "") -> None:
    """Write whose each run is into its folder; if that fails, end the jobs."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    typed = shlex.join(["python", *sys.argv])
    try:
        for job, handle in zip(jobs, handles, strict=True):
            told = (cluster, handle.job_id, handle.num_tasks, str(handle.paths.folder))
            Record(*told, now, after, typed, job.config.identity()).write(job.folder)
    except BaseException:
        for handle in handles:
            handle.cancel(check=False)
        raise


@contextmanager
def _undone(jobs: Sequence[Job], folder: Path) -> Iterator[None]:
    """If the block raises, delete new run folders, and files that submitit left in ``folder``."""
    new = [job.folder for job in jobs if not job.folder.exists()]
    before = {*folder.glob("*.*")}
    try:
        yield
    except BaseException:
        for path in new:
            shutil.rmtree(path, ignore_errors=True)
            runs.delete_empty(path.parent)
        for path in {*folder.glob("*.*")} - before:  # a job's files are in a folder of their own
            if path.is_file():
                path.unlink()
        runs.delete_empty(folder)
        raise


@contextmanager
def snapshot(folder: Path, root: Path = ROOT) -> Iterator[Path]:
    """Copy the code into ``folder``: edits made while a job queues change nothing.

    The copy is named by its contents, so that submissions of unchanged code share one. It is kept
    unless the block raises and nothing else can have used it. (submitit's RsyncSnapshot copies only
    files that git tracks, and a clone for each job.)
    """
    found = (path for name in SOURCES for path in (root / name).rglob("*"))
    paths = {root / name for name in OTHERS} | {path for path in found if path.suffix in ENDINGS}
    files = {path.relative_to(root): path.read_bytes() for path in paths if path.is_file()}
    commit = git_commit(root)
    files[Path(COMMIT)] = f"{commit}\n".encode()
    digest = hashlib.sha256()
    for path, data in sorted(files.items()):
        digest.update(f"{path}\0{len(data)}\0".encode() + data)
    code = folder / f"{commit.rstrip('+') or 'no-commit'}-{digest.hexdigest()[:8]}"
    new = not code.exists()
    try:
        if new:
            _write(code, files)
        yield code
    except BaseException:
        if new:
            shutil.rmtree(code, ignore_errors=True)
            runs.delete_empty(folder)
        raise


def _write(code: Path, files: dict[Path, bytes]) -> None:
    """Write a snapshot beside its place, and move it there once it is whole."""
    code.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=code.parent, prefix="."))
    try:
        whole = temporary / code.name  # mkdtemp's folder is for nobody else
        for path, data in files.items():
            (whole / path).parent.mkdir(parents=True, exist_ok=True)
            (whole / path).write_bytes(data)
        whole.rename(code)
    finally:
        shutil.rmtree(temporary)
