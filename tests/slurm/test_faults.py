"""What befalls jobs on a real Slurm, and that nothing but time is lost by it."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from common import attempts
from kill_and_resume import difference, result
from launch.cluster.states import steps_done
from slurm_trial_parts.cluster import Cluster, ranks
from tests.slurm.jobs import end, finished, output, pretrain, record
from tests.slurm.sandbox import Sandbox, wait_for

EPOCHS = 8
WORDS = f"--tasks-per-node 2 --epochs {EPOCHS} --workers 1 --name run"
START_S = 180  # for a job to start, or to start again


@pytest.fixture(autouse=True)
def no_jobs_left(slurm: Sandbox) -> Iterator[None]:
    yield
    slurm.wait_idle()


def test_a_run_that_was_preempted_and_lost_a_rank_equals_an_undisturbed_local_one(
    slurm: Sandbox, tmp_path: Path
):
    undisturbed = pretrain(tmp_path / "local", WORDS, cluster="local")
    steps = finished(undisturbed)["steps"]
    folder = pretrain(tmp_path / "slurm", WORDS)
    job, cluster = record(folder).job_id, Cluster(slurm.folder)

    _wait_for(folder, 1, steps // 6)
    cluster.batch("true", "--partition", "high", "--exclusive", "--nodelist", cluster.node(job))
    _wait_for(folder, 2, steps // 2)
    assert cluster.requeues(job) == 1
    assert "asking to be requeued" in output(folder)

    os.kill(ranks(job)[1], signal.SIGKILL)
    assert end(folder) == "FAILED"
    assert pretrain(tmp_path / "slurm", WORDS) == folder
    assert record(folder).job_id != job
    assert end(folder) == "COMPLETED"
    assert finished(folder)["restarts"] == 2
    assert difference(result(folder), result(undisturbed)) == ""


def _wait_for(folder: Path, starts: int, steps: int) -> None:
    def there() -> bool:
        return attempts.count(folder) == starts and steps_done(folder) >= steps

    wait_for(there, f"step {steps} of start {starts}", START_S)
