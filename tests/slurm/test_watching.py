"""results.py --watch and the doctor on a real Slurm."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from launch.checks import slurm as checks
from launch.slurm.unfinished import steps_done, to_go_s
from tests.slurm.jobs import finished, pretrain
from tests.slurm.sandbox.cluster import Sandbox
from tests.slurm.sandbox.layout import wait_for
from tests.slurm.trial.runs import record

ROOT = Path(__file__).resolve().parents[2]


def test_jobs_are_watched_from_the_queue_to_their_ends(slurm: Sandbox, tmp_path: Path) -> None:
    """One is killed, one is requeued and goes on, and one waits in the queue."""
    good = pretrain(tmp_path, "--epochs 6 --workers 0 --name good")
    killed = pretrain(tmp_path, "--epochs 9 --workers 0 --name killed")
    later = pretrain(tmp_path, "--epochs 1 --workers 0 --name later --slurm begin=now+1hour")
    command = [sys.executable, "-u", str(ROOT / "launch" / "results.py"), "--watch"]
    command += ["--every", "0.5", "--output-dir", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as watching:
        wait_for(lambda: steps_done(good) > 3, "steps", 300)
        slurm.run("scontrol", "requeue", record(good)["job_id"])
        wait_for(lambda: steps_done(killed) > 0, "steps", 300)
        assert to_go_s(killed)
        slurm.ranks(record(killed)["job_id"])[0].send_signal(signal.SIGKILL)
        slurm.wait_for_end(record(killed)["job_id"])
        slurm.wait_for_end(record(good)["job_id"])
        slurm.run("scancel", record(later)["job_id"])
        shown, _ = watching.communicate(timeout=120)
    assert finished(good)["restarts"] == 1 and watching.returncode == 0
    states: dict[str, list[str]] = {}
    for line in shown.splitlines():
        cells = [cell.strip() for cell in line.split("│")[1:-1]]
        if cells and cells[3] not in states.setdefault(cells[1], []):
            states[cells[1]].append(cells[3])
    assert states["later"][0] == "pending (BeginTime)"
    assert states["later"][-1].startswith("cancelled")
    assert states["killed"][-1] == "failed: srun: error: n1: task 0: Killed"
    assert "running" in states["good"] and states["good"][-1] == "finished"
    assert "nothing is queued or running" in shown.splitlines()[-1]


def test_the_doctor_knows_partitions_gpus_and_accounting(slurm: Sandbox) -> None:
    found = {check.name: check for check in checks.slurm()}
    assert "(2 nodes, gpu:2" in found["Slurm"].found and found["accounting"].mark == "ok"
    assert "a job asks for 8 GPUs a node and no node has more than 2" in found["Slurm"].found
