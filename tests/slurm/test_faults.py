"""Faults on a real Slurm cost a run nothing but time."""

from pathlib import Path

from tests.slurm.jobs import finished, output
from tests.slurm.sandbox.cluster import Sandbox
from tests.slurm.trial.disturbed import Pretraining
from tests.slurm.trial.faults import killed
from tests.slurm.trial.runs import type_in


def test_a_run_that_was_preempted_and_lost_a_rank_equals_an_undisturbed_local_one(
    slurm: Sandbox, tmp_path: Path
):
    trial = Pretraining(slurm, tmp_path, epochs=8, epoch_steps=3)
    trial.undisturbed = trial.run("local", cluster="local")
    type_in(slurm, *trial.undisturbed.words)

    run = trial.run("preempted")
    run.type_command()
    run.wait_until(1, 0.2)
    where = ("--partition", "high", "--exclusive", "--nodelist", slurm.node(run.job))
    slurm.submit(*where, "-o", "/dev/null", "--wrap", "true")
    run.wait_for_start(2)
    assert run.requeues == 1
    assert "asking to be requeued" in output(run.folder)

    first = run.job
    killed(run, start=2)
    assert run.job != first
    assert run.wait_for_end() == "COMPLETED"
    assert finished(run.folder)["restarts"] == 2
    assert trial.compared(run.folder) == ("equal to the bit", True)
