"""What submitit is told: the resources of a job, its environment, and how its Python is started."""

import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import submitit

import demo
from common.errors import UserError
from launch.cluster import site
from launch.cluster.processes import TIMEOUT_MIN, gpus_per_node, tasks_per_node, visible_gpus
from launch.cluster.resources import Resources, gpus_of_gres, sbatch_options

LOCAL_TIMEOUT_MIN = 60 * 24 * 365
# clean_env takes them away too: where the cluster is must stay, and the signal that a job expects.
KEPT = ("SLURM_CONF", "SUBMITIT_PREEMPT_SIGNAL")


def local_executor(name: str, folder: Path, resources: Resources) -> submitit.AutoExecutor:
    """What starts jobs on this machine.

    Args:
        name: of the jobs.
        folder: for submitit's own files, with ``%j`` for the job.
        resources: of each job.
    """
    executor = submitit.AutoExecutor(folder=folder, cluster="local")
    gpus = shlex.quote(visible_gpus(gpus_per_node(resources)))
    # What a shell does before it starts submitit's controller, which it never does.
    ours = [sys.executable, "-P", "-m", "launch.cluster.controller", str(folder)]
    setup = [f"export CUDA_VISIBLE_DEVICES={gpus}", f"exec {shlex.join(ours)}"]
    executor.update_parameters(**_shared(name, resources, "local"), local_setup=setup)
    return executor


def slurm_executor(
    name: str, folder: Path, resources: Resources, code: Path, after: str = ""
) -> submitit.AutoExecutor:
    """What submits jobs to Slurm.

    Args:
        name: of the jobs.
        folder: for submitit's own files, with ``%j`` for the job.
        resources: of each job.
        code: the snapshot that they run.
        after: the Slurm job that must succeed first, "" for none.

    Raises:
        UserError: without srun, or for what the site has set.
    """
    if shutil.which("srun") is None:
        raise UserError("sbatch is on the PATH but srun is not; jobs need both.")
    python = shlex.quote(sys.executable)
    hold = shlex.quote(str(code / "launch" / "cluster" / "hold_signals.py"))
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
        **_shared(name, resources, "slurm"),
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


def _shared(name: str, resources: Resources, cluster: str) -> dict[str, Any]:
    minutes = {"slurm": TIMEOUT_MIN, "local": LOCAL_TIMEOUT_MIN}
    return {
        "name": name,
        "nodes": resources.nodes,
        "tasks_per_node": tasks_per_node(resources),
        "timeout_min": resources.timeout_min or minutes[cluster],
    }


@contextmanager
def job_environment(code: Path | None = None) -> Iterator[None]:
    """Without our own rank and rendezvous; with ``code`` first on the path of what is submitted.

    Args:
        code: a checkout, or a snapshot of it; None leaves the path alone.
    """
    added = {name: os.environ[name] for name in KEPT if name in os.environ}
    # Its default is beside the code, and that is not where it was any more.
    added[demo.datasets.ENVIRONMENT] = str(demo.default_root())
    if code is not None:
        path = (str(code), os.environ.get("PYTHONPATH"))
        added["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    with submitit.helpers.clean_env():
        before = {name: os.environ.get(name) for name in added}
        os.environ.update(added)
        try:
            yield
        finally:
            for name, value in before.items():
                del os.environ[name]
                if value is not None:
                    os.environ[name] = value
