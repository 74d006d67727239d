"""A run as a job: picklable, restartable, and in the results table once it is finished."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import submitit

from common import runs
from launch import tables

PATIENCE_S = 600


@dataclass(frozen=True)
class Job:
    """One run, called in each of its processes.

    Attributes:
        work: trains to the end, resuming from the folder, and writes its final metrics.
        config: what ``work`` is told.
        folder: the run folder, absolute.
        output_dir: the folder that holds ``runs/`` and ``results/``, absolute.
        steps: optimizer steps of the whole run, for the progress bar.
    """

    work: Callable[[Any, Path], Any]
    config: Any
    folder: Path
    output_dir: Path
    steps: int

    def __call__(self) -> None:
        """Run to the end; the main process then rebuilds the results tables."""
        _tell_torch_who_we_are()
        if os.environ.get("RANK", "0") != "0":
            self._work()
            return
        # Slurm starts a job of a lost node anew while the first copy may still be running there.
        with runs.hold(self.folder, PATIENCE_S if "SLURM_JOB_ID" in os.environ else 0):
            self._work()
        tables.rebuild(self.output_dir)

    def _work(self) -> None:
        if not runs.is_finished(self.folder):
            self.work(self.config, self.folder)

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """Submit the same job again: progress lives in the run folder, never in the pickle."""
        return submitit.helpers.DelayedSubmission(self)


def _tell_torch_who_we_are() -> None:
    """Set RANK, WORLD_SIZE and so on from submitit's environment, unless torchrun did."""
    if "RANK" in os.environ or "SUBMITIT_EXECUTOR" not in os.environ:
        return
    environment = submitit.JobEnvironment()
    # Processes choose their GPU by local rank, so every one may see all of the node's.
    submitit.helpers.TorchDistributedEnvironment().export(set_cuda_visible_devices=False)
    if environment.num_nodes == 1:  # a host name need not resolve for one machine
        os.environ["MASTER_ADDR"] = "127.0.0.1"
