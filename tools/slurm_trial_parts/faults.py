"""What may befall a job on a cluster, done to one that runs."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from slurm_trial_parts.cluster import rank_of, wait_for
from slurm_trial_parts.runs import Run, say

BURNERS = 6
DOWN_S = 6  # how long the controller is away


@dataclass(frozen=True)
class Fault:
    """One kind of fault.

    Attributes:
        name: as ``--faults`` takes it.
        befall: does it to a run that was submitted, of so many steps, and comes back when the run
            has recovered so far that only its end is to be waited for.
        words: added to the command.
        requeued: whether Slurm starts the job again, whether or not it then has much to do.
    """

    name: str
    befall: Callable[[Run, int], None]
    words: tuple[str, ...] = ()


def preempted(run: Run, steps: int) -> None:
    """Three times a job of the higher partition takes the node."""
    for time_, share in enumerate((0.15, 0.35, 0.55), 1):
        run.wait_until(time_, int(share * steps))
        node = run.cluster.node(run.job)
        options = ("--partition", "high", "--exclusive", "--nodelist", node)
        other = run.cluster.batch("sleep 3", *options)
        say(f"job {run.job}: at step {run.steps} of {steps}, job {other} of partition high preempts")
        run.wait_for_start(time_ + 1)


def limited(run: Run, steps: int) -> None:
    """The job meets its time limit, since others keep the machine busy meanwhile."""
    with busy(run):
        say(f"job {run.job}: has 3 minutes, of which Slurm warns 60 s before the end")
        run.wait_for_start(2)
    say(f"job {run.job}: had come to step {run.steps} of {steps}")


def requeued(run: Run, steps: int) -> None:
    """``scontrol requeue``, as an operator or a node's health check does it."""
    run.wait_until(1, int(0.4 * steps))
    say(f"job {run.job}: at step {run.steps} of {steps}, scontrol requeue")
    run.cluster.run("scontrol", "requeue", run.job)
    run.wait_for_start(2)


def killed(run: Run, steps: int) -> None:
    """SIGKILL for one rank; the job fails, and the same command is typed again."""
    run.wait_until(1, int(0.4 * steps))
    pid = rank_of(run.job, 1)
    say(f"job {run.job}: at step {run.steps} of {steps}, kill -9 of rank 1 ({pid})")
    os.kill(pid, signal.SIGKILL)
    state = run.wait_for_end()
    if state != "FAILED":
        raise RuntimeError(f"job {run.job} did not fail but is {state}")
    run.type_command()
    run.wait_for_start(2)


def lost_node(run: Run, steps: int) -> None:
    """slurmd dies and the node is declared down, while the job's processes there live on."""
    run.wait_until(1, int(0.15 * steps))
    node = run.cluster.node(run.job)
    try:
        with busy(run):  # or the first copy would be at its end before Slurm calls it lost
            say(f"job {run.job}: at step {run.steps} of {steps}, slurmd of {node} is killed")
            run.cluster.tool("kill", f"slurmd.{node}")
            run.wait_for_start(2)
            say(f"job {run.job}: the first copy had come to step {run.steps} of {steps}")
    finally:
        run.cluster.tool("start")
    say(f"slurmd of {node} is back")


def without_controller(run: Run, steps: int) -> None:
    """slurmctld ends and comes back while the job runs."""
    run.wait_until(1, int(0.3 * steps))
    say(f"job {run.job}: at step {run.steps} of {steps}, slurmctld is ended")
    run.cluster.end_daemon("slurmctld")
    time.sleep(DOWN_S)
    run.cluster.tool("start")
    say(f"slurmctld is back; job {run.job} is at step {run.steps} of {steps}")


FAULTS = (
    Fault("preempted 3 times", preempted),
    Fault("3-minute limit", limited, ("--timeout-min", "3", "--signal-delay-s", "60")),
    Fault("scontrol requeue", requeued),
    Fault("kill -9 of a rank", killed),
    Fault("slurmd killed", lost_node),
    Fault("slurmctld restarted", without_controller),
)


@contextmanager
def busy(run: Run) -> Iterator[None]:
    """Another job beside a run, on another node of the same machine, that makes it slow."""
    run.wait_until(1, 0)
    node = "n2" if run.cluster.node(run.job) == "n1" else "n1"
    script = f"for i in $(seq {BURNERS}); do (while :; do :; done) & done; wait"
    job = run.cluster.batch(script, "--nodelist", node, "--no-requeue", "--time", "10")
    wait_for(lambda: run.cluster.shown(job).get("JobState") == "RUNNING", f"start of job {job}")
    say(f"job {job} keeps the machine busy, so that job {run.job} takes longer")
    try:
        yield
    finally:
        run.cluster.run("scancel", job)
