"""tools/slurm-sandbox makes a real Slurm: jobs, accounts, preemption, faults, and a clean end."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.sandbox import Sandbox, started, wait_for

LINE = 'echo "$SLURM_JOB_ID $(hostname) $SLURM_LOCALID $CUDA_VISIBLE_DEVICES $(getent hosts n2)"'

YIELDING = """\
#!/bin/bash
#SBATCH --partition=main --nodes=2 --exclusive --requeue --time=60 --signal=B:USR2@120
trap 'echo preempted; scontrol requeue "$SLURM_JOB_ID"; exit' USR2
echo "start ${SLURM_RESTART_COUNT:-0}"
sleep 600 & wait
"""


@pytest.fixture(autouse=True)
def no_jobs_left(slurm: Sandbox) -> Iterator[None]:
    yield
    slurm.wait_idle()


def test_it_starts_with_idle_nodes_and_starting_again_changes_nothing(slurm: Sandbox):
    before = {daemon: slurm.pid(daemon) for daemon in ("munged", "slurmctld", "slurmd.n1")}
    assert all(before.values())
    assert slurm.states() == {"n1": "idle", "n2": "idle"}
    assert slurm.start() == f"export SLURM_CONF={slurm.folder}/slurm.conf\n"
    assert {daemon: slurm.pid(daemon) for daemon in before} == before
    assert slurm.is_up()
    partitions = slurm.run("sinfo", "-h", "-o", "%P %D").splitlines()
    assert sorted(partitions) == ["high 2", "main* 2"]


def test_tasks_run_on_both_nodes_with_their_gpus_and_the_job_is_in_the_accounts(slurm: Sandbox):
    tasks = ("-N", "2", "--ntasks-per-node", "2", "--gpus-per-node", "2")
    lines = [line.split() for line in slurm.run("srun", *tasks, "bash", "-c", LINE).splitlines()]
    assert sorted(line[1:4] for line in lines) == [
        [node, local, "0,1"] for node in ("n1", "n2") for local in ("0", "1")
    ]
    assert {tuple(line[4:]) for line in lines} == {("127.0.1.2", "n2")}
    (job,) = {line[0] for line in lines}
    account = ("sacct", "-X", "-n", "-P", "-j", job, "-o", "State,AllocNodes")
    wait_for(lambda: slurm.run(*account).strip() == "COMPLETED|2", "account of the job")


def test_more_gpus_than_a_node_has_are_refused(slurm: Sandbox):
    refused = slurm.call("sbatch", "--gpus-per-node=3", "--wrap", "true")
    assert refused.returncode != 0
    assert "node configuration is not available" in refused.stderr


def test_a_killed_slurmd_comes_back_and_jobs_outlive_it(slurm: Sandbox):
    job = slurm.submit("-w", "n2", "-o", "/dev/null", "--wrap", "sleep 600")
    wait_for(lambda: slurm.state(job) == "RUNNING", "running job")
    slurm.kill("slurmd.n2")
    assert slurm.pid("slurmd.n2") is None
    assert slurm.pid("slurmd.n1") is not None
    assert not slurm.is_up()
    slurm.start()
    assert slurm.is_up()
    assert slurm.state(job) == "RUNNING"
    assert slurm.run("srun", "-w", "n2", "hostname") == "n2\n"


def test_a_killed_controller_comes_back_with_its_jobs(slurm: Sandbox):
    job = slurm.submit("-o", "/dev/null", "--wrap", "sleep 600")
    wait_for(lambda: slurm.state(job) == "RUNNING", "running job")
    running, saved = time.time(), slurm.folder / "state" / "job_state"
    # The controller saves its state every few seconds, and a kill loses what came since.
    wait_for(lambda: saved.exists() and saved.stat().st_mtime > running, "saved state")
    slurm.kill("slurmctld")
    slurm.start()
    assert slurm.state(job) == "RUNNING"


def test_a_job_in_high_preempts_one_in_main_which_starts_again(slurm: Sandbox, tmp_path: Path):
    script, log = tmp_path / "job.sh", tmp_path / "log.txt"
    script.write_text(YIELDING)
    job = slurm.submit("-o", str(log), "--open-mode=append", str(script))
    wait_for(lambda: log.exists() and "start 0" in log.read_text(), "start")
    assert slurm.run("srun", "-p", "high", "-N", "2", "--exclusive", "hostname").split()
    wait_for(lambda: "start 1" in log.read_text(), "second start")
    words = [line for line in log.read_text().splitlines() if line.startswith(("start", "preempt"))]
    assert words == ["start 0", "preempted", "start 1"]
    assert slurm.state(job) == "RUNNING"


def test_a_second_cluster_beside_it_without_accounts_ends_without_a_trace(slurm: Sandbox):
    with started("--nodes", "1", "--gpus-per-node", "0", "--no-accounting") as other:
        assert other.states() == {"n1": "idle"}
        assert other.call("sacct").returncode != 0
        job = other.submit("-o", "/dev/null", "--wrap", "setsid sleep 986 & trap '' TERM; wait")
        wait_for(lambda: "sleep 986" in other.processes().values(), "running job")
        assert other.state(job) == "RUNNING"
        refused = other.tool("start", "--nodes", "2")
        assert refused.returncode == 1 and "stop it first" in refused.stderr
        assert len(other.processes()) >= 5  # munged, slurmctld, slurmd, slurmstepd, sleep
        other.stop()
        assert other.processes() == {}
        assert not other.folder.exists()
        assert other.tool("stop").returncode == 0
    assert slurm.is_up()
