"""The sandbox is a real Slurm: jobs, accounts, preemption, faults, and a clean end."""

import tempfile
import time
from pathlib import Path

import psutil
import pytest

from tests.slurm.sandbox.__main__ import main
from tests.slurm.sandbox.cluster import Sandbox, started
from tests.slurm.sandbox.layout import wait_for

LINE = 'echo "$SLURM_JOB_ID $(hostname) $SLURM_LOCALID $CUDA_VISIBLE_DEVICES $(getent hosts n2)"'
YIELDING = """\
#!/bin/bash
#SBATCH --partition=main --nodes=2 --exclusive --requeue --time=60 --signal=B:USR2@120
trap 'echo preempted; scontrol requeue "$SLURM_JOB_ID"; exit' USR2
echo "start ${SLURM_RESTART_COUNT:-0}"
sleep 600 & wait
"""


def test_it_has_idle_nodes_and_starting_again_changes_nothing(
    slurm: Sandbox, capsys: pytest.CaptureFixture[str]
):
    before = {daemon: slurm.process(daemon) for daemon in slurm.daemons}
    assert all(before.values()) and slurm.is_up()
    assert slurm.node_states() == {"n1": "idle", "n2": "idle"}
    with pytest.raises(SystemExit) as ended:
        main(["start", "--folder", str(slurm.folder)])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"export SLURM_CONF={slurm.folder}/slurm.conf\n"
    assert {daemon: slurm.process(daemon) for daemon in before} == before
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


def test_a_killed_slurmd_and_controller_come_back_and_jobs_outlive_them(slurm: Sandbox):
    job = slurm.submit("-w", "n2", "-o", "/dev/null", "--wrap", "sleep 600")
    wait_for(lambda: slurm.state(job) == "RUNNING", "running job")
    running, saved = time.time(), slurm.folder / "state" / "job_state"
    # The controller saves its state every few seconds, and a kill loses what came since.
    wait_for(lambda: saved.exists() and saved.stat().st_mtime > running, "saved state")
    slurm.end("slurmd.n2")
    slurm.end("slurmctld")
    assert slurm.process("slurmd.n2") is None and slurm.process("slurmd.n1") is not None
    assert not slurm.is_up()
    slurm.start()
    assert slurm.is_up() and slurm.state(job) == "RUNNING"
    assert slurm.run("srun", "-w", "n2", "hostname") == "n2\n"


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
    with started(nodes=1, gpus_per_node=0, accounting=False) as other:
        assert other.node_states() == {"n1": "idle"}
        assert other.call("sacct").returncode != 0
        job = other.submit("-o", "/dev/null", "--wrap", "setsid sleep 986 & trap '' TERM; wait")
        wait_for(lambda: "sleep 986" in command_lines(), "running job")
        assert other.state(job) == "RUNNING"
        assert sum(str(other.folder) in line for line in command_lines()) >= 2
        other.stop()
        assert not [line for line in command_lines() if str(other.folder) in line]
        assert "sleep 986" not in command_lines()
        assert not other.folder.exists()
    assert slurm.is_up()


def command_lines() -> list[str]:
    """The commands of all processes of this machine."""
    found = (process.info["cmdline"] for process in psutil.process_iter(["cmdline"]))
    return [" ".join(words or ()) for words in found]


def test_bad_input_is_one_sentence(
    installed: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with tempfile.TemporaryDirectory(dir="/tmp") as full:
        (Path(full) / "thesis.tex").touch()
        for words, said in (
            (f"start --folder {full}", "something else in it"),
            ("start --folder /tmp/a,b", "at most 60 letters"),
            (f"stop --folder {tmp_path}", "there is no sandbox"),
        ):
            with pytest.raises(SystemExit) as ended:
                main(words.split())
            (line,) = capsys.readouterr().err.splitlines()
            assert ended.value.code == 2 and said in line
