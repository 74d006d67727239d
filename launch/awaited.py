"""Jobs that start from what a pre-training run will leave, submitted before it is finished.

The name of a run tells the weights' SHA-256, which nobody knows before they are there. So such a
job has its own folder, ``runs/awaiting/<kind>-<name>/``, until it starts; then it is the run that
the same command, given the finished run, would have been.
"""

import json
import os
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common import runs
from common.errors import UserError
from common.files import write_json
from common.weights import Weights
from launch.cluster import slurm
from launch.cluster.jobs import AWAITING, STARTED, Job
from launch.cluster.processes import resolve_cluster
from launch.cluster.records import Record
from launch.cluster.resources import Resources
from launch.cluster.slurm import State
from launch.options import RunOptions
from pretrain import methods
from pretrain.checkpoint import FILE
from pretrain.config import ResolvedConfig


@dataclass(frozen=True)
class Pretraining:
    """A pre-training run as the weights of others.

    Attributes:
        folder: its run folder.
        config: its configuration.
        job_id: the Slurm job that has yet to finish it; "" once it is finished.
    """

    folder: Path
    config: dict[str, Any]
    job_id: str = ""

    @property
    def checkpoint(self) -> Path:
        """What it leaves."""
        return self.folder / FILE

    @property
    def description(self) -> str:
        """A line about its weights, which are yet to come."""
        return f"weights: what {self.folder} will leave, after job {self.job_id}"

    def weights(self, label: str | None) -> Weights:
        """What others know of its weights before they are there; a placeholder is the SHA-256.

        Args:
            label: ``--label``, which overrides the method's own name.
        """
        known = self.config
        return Weights(
            known["backbone"],
            "",
            runs.short_hash(str(self.folder)),
            label or methods.find(known["method"]).title,
            known["norm"],
            known["epochs"],
            ResolvedConfig(**known).unpublished(),
        )


def find_pretraining(wanted: str) -> Pretraining | None:
    """The pre-training run whose folder ``--weights`` names; None if that is no folder.

    Raises:
        UserError: if it is no such run, or is not finished and no job on Slurm has it.
    """
    folder = Path(wanted).expanduser().resolve()
    if not os.path.isdir(folder):  # Path's own raises inside a folder that is not ours
        return None
    try:
        config = json.loads((folder / "config.json").read_text())
        methods.find(config["method"])
    except (OSError, ValueError, KeyError, UserError) as error:
        raise UserError(
            f"--weights {wanted} is a folder, but no pre-training run; give a checkpoint, or a "
            "folder of runs/pretrain/."
        ) from error
    if runs.is_finished(folder):
        return Pretraining(folder, config)
    record = Record.read(folder)
    job = record.job_id if record and record.cluster == "slurm" else ""
    state = slurm.states([job])[job] if job else State(slurm.UNKNOWN)
    if state.reason == slurm.NO_ANSWER:
        raise UserError("Slurm does not answer; try again when its controller is back.")
    if not state.live:
        raise UserError(
            f"--weights {wanted}: this pre-training is not finished, and no job on Slurm has it; "
            "start it again by its own command, or give its checkpoint.pth.tar as it is."
        )
    return Pretraining(folder, config, job)


def check_waits(job_id: str, resources: Resources) -> None:
    """Raise if a job that must wait for another would run where nobody waits.

    Raises:
        UserError: for a local job or one in this process, and a ``job_id``.
    """
    cluster = resolve_cluster(resources)
    if job_id and cluster != "slurm":
        raise UserError(
            f"the weights are what Slurm job {job_id} will leave, and --cluster {cluster} does not "
            "wait for it; use --cluster slurm, or wait for its end."
        )


class Awaited(ABC):
    """What a job that waits is told: how to make the real one, once the weights are there."""

    @abstractmethod
    def prepare(self) -> Job:
        """The run, from weights that are there."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """That run's, with a placeholder for the weights."""


def waiting_folder(run: RunOptions, kind: str, name: str) -> Path:
    """The folder of a job that waits; two that will need one run folder have one here as well.

    Args:
        run: the options of the run that it becomes.
        kind: of that run.
        name: that run's, but for ``--name``, with a placeholder for the weights.

    Raises:
        UserError: if it could not be written, or ``--name`` is that of a run that is there.
    """
    there = run.folder(kind, name)
    if run.name and there.exists():
        raise UserError(
            f"{there} is the folder of another run, for these weights are yet to come; choose "
            "another --name, or delete it."
        )
    return replace(run, name=None).folder(AWAITING, f"{kind}-{run.name or name}")


def start_awaited(config: Awaited, folder: Path) -> None:
    """Become the run that ``config`` prepares, in its own run folder.

    Every process of the job calls this with the same arguments.

    Raises:
        UserError: if the run cannot be, or its folder holds another or is in use.
    """
    job = config.prepare()
    runs.check_same(job.folder, job.config.identity())
    if runs.is_main_process():
        record = Record.read(folder)
        if record is not None and not runs.is_finished(job.folder):
            runs.require_free(job.folder)
            replace(record, identity=job.config.identity()).write(job.folder)
        started = {"run": str(job.folder), "job": record.job_id if record is not None else ""}
        write_json(folder / STARTED, started)
        print(f"run folder: {job.folder}", flush=True)
    replace(job, max_requeues=sys.maxsize)()  # the job that waited has its own limit
