"""A run as a job: picklable, restartable, and in the results table once it is finished."""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import runs
from common.attempts import slurm_restarts
from common.errors import STOPPED_STATUS, UserError
from common.files import atomic_write
from launch.slurm.states import Record

if TYPE_CHECKING:
    from submitit.core.utils import JobPaths
    from submitit.helpers import DelayedSubmission

STOPPED = (STOPPED_STATUS, -signal.SIGTERM)  # statuses of a process that SIGTERM has ended
FIRST_PORT, PORTS = 20000, 40000  # of submitit's choice


@dataclass(frozen=True)
class Job:
    """One run, called in each of its processes.

    ``work(config, folder)`` trains to the end, resuming from the folder, and writes the final
    metrics; ``config.identity()`` tells the run from others.
    """

    kind: str  # pretrain, transfer, segmentation, linear or semi
    work: Callable[[Any, Path], Any]
    config: Any
    folder: Path  # absolute
    output_dir: Path  # that holds runs/ and results/, absolute
    steps: int  # of the optimizer in the whole run, for the progress bar
    after: Path | None = None  # folder of the pre-training run whose end it waits for
    max_requeues: int = 20

    def __call__(self) -> None:
        """Run to the end; the main process then rebuilds the results tables.

        In a job of submitit's, the sentence of a :class:`UserError` is left in :func:`error_file`.
        """
        from launch.tables import tables

        told = _enter_submitit()
        try:
            if slurm_restarts() > self.max_requeues:
                raise self._too_many()
            runs.check_same(self.folder, self.config.identity())
            if not runs.is_finished(self.folder):
                self.work(self.config, self.folder)
        except Exception as error:
            if told is not None and isinstance(error, UserError):
                with atomic_write(told, "w") as file:
                    file.write(str(error))
            if runs.is_main_process() and (waiting := followers(self.output_dir, self.folder)):
                print(f"Slurm cancels what waited for this job: {', '.join(waiting)}", flush=True)
            raise
        if runs.is_main_process():
            tables.rebuild(self.output_dir)

    def checkpoint(self) -> "DelayedSubmission":
        """Submit the same job again: progress lives in the run folder, never in the pickle.

        submitit calls this before it asks Slurm for a requeue.
        """
        from submitit.helpers import DelayedSubmission

        if slurm_restarts() >= self.max_requeues:
            raise self._too_many()
        return DelayedSubmission(self)

    def _too_many(self) -> UserError:
        return UserError(
            f"Slurm has requeued this job {slurm_restarts()} times, and --max-requeues "
            f"{self.max_requeues} is the limit; the same command goes on from the last checkpoint."
        )


def followers(output_dir: Path, folder: Path) -> list[str]:
    """The Slurm jobs that wait for the one that a run was given to."""
    mine = Record.read(folder)
    records = (Record.read(path.parent) for path in output_dir.glob("runs/*/*/job.json"))
    return sorted(r.job_id for r in records if r and mine and r.after == mine.job_id)


def error_file(paths: "JobPaths") -> Path:
    """The file for the sentence of one process's :class:`UserError`, beside submitit's own."""
    return paths.folder / f"{paths.job_id}_{paths.task_id}_error.txt"


def _enter_submitit() -> Path | None:
    """Set RANK, WORLD_SIZE and so on from submitit's environment, unless torchrun did.

    Return the :func:`error_file`, without what an earlier attempt left; None outside submitit.
    """
    if "RANK" in os.environ or "SUBMITIT_EXECUTOR" not in os.environ:
        return None
    import submitit

    environment = submitit.JobEnvironment()
    # Processes choose their GPU by local rank, so every one may see all of the node's.
    submitit.helpers.TorchDistributedEnvironment().export(set_cuda_visible_devices=False)
    if environment.num_nodes == 1:  # a host name need not resolve for one machine
        os.environ["MASTER_ADDR"] = "127.0.0.1"
    # The first copy of a job that Slurm has started anew may still have the port.
    port = int(os.environ["MASTER_PORT"]) - FIRST_PORT + 7 * slurm_restarts()
    os.environ["MASTER_PORT"] = str(FIRST_PORT + port % PORTS)
    path = error_file(environment.paths)
    path.unlink(missing_ok=True)
    return path
