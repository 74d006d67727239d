"""What may befall a job on a cluster, done to one that runs."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from slurm_trial_parts.cluster import lives, ranks, wait_for
from slurm_trial_parts.runs import PATIENCE_S, Run, say

TRANSFER = "transfer FCN 1x2"
RUNS_S, STANDS_S = 0.5, 1.5  # of a run that is slowed down
DOWN_S = 6  # how long the controller is away


@dataclass(frozen=True)
class Fault:
    """One kind of fault.

    Attributes:
        name: as ``--faults`` takes it.
        befall: does it to a run that was submitted, of so many steps, and comes back when the run
            has recovered so far that only its end is to be waited for.
        words: added to the command.
        on: kinds of run that it is for.
    """

    name: str
    befall: Callable[[Run, int], None]
    words: tuple[str, ...] = ()
    on: tuple[str, ...] = ("pretrain 2x2", TRANSFER)


def preempted(run: Run, steps: int) -> None:
    """Three times a job of the higher partition takes the node."""
    for time_, share in enumerate((0.15, 0.35, 0.55), 1):
        run.wait_until(time_, int(share * steps))
        node = run.cluster.node(run.job)
        options = ("--partition", "high", "--exclusive", "--nodelist", node)
        other = run.cluster.batch("sleep 3", *options)
        say(
            f"job {run.job}: at step {run.steps} of {steps}, job {other} of partition high preempts"
        )
        run.wait_for_start(time_ + 1)


def limited(run: Run, steps: int) -> None:
    """The job meets its time limit, since it is slow."""
    with slow(run):
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
    pid = ranks(run.job)[1]
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
    node, first = run.cluster.node(run.job), ranks(run.job).values()
    try:
        with slow(run):  # or the first copy would be at its end before Slurm calls it lost
            say(f"job {run.job}: at step {run.steps} of {steps}, slurmd of {node} is killed")
            run.cluster.tool("kill", f"slurmd.{node}")
            run.wait_for_start(2)
            say(f"job {run.job}: the first copy had come to step {run.steps} of {steps}")
        wait_for(lambda: not any(map(lives, first)), "end of the first copy")
        say(f"job {run.job}: the first copy has seen the second, and stopped")
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


def terminated(run: Run, steps: int) -> None:
    """SIGTERM for every process, data loaders' too, as where a site preempts by that alone."""
    run.wait_until(1, int(0.3 * steps))
    say(f"job {run.job}: at step {run.steps} of {steps}, SIGTERM for all of it")
    run.cluster.run("scancel", "--signal=TERM", run.job)
    log = run.folder / "log.txt"
    wait_for(lambda: "saving, and going on" in log.read_text(), "word of the signal")


def evaluating(run: Run, steps: int) -> None:
    """The signal of a time limit or a preemption, while the trained model is tested."""
    wait_for((run.folder / "model_final.pth").exists, "trained model", PATIENCE_S)
    say(f"job {run.job}: after step {run.steps} of {steps}, USR2 for all of it")
    run.cluster.run("scancel", "--signal=USR2", run.job)
    run.wait_for_start(2)


FAULTS = (
    Fault("preempted 3 times", preempted),
    Fault("3-minute limit", limited, ("--timeout-min", "3", "--signal-delay-s", "60")),
    Fault("scontrol requeue", requeued),
    Fault("kill -9 of a rank", killed),
    Fault("slurmd killed", lost_node, on=("pretrain 1x2", TRANSFER)),
    Fault("slurmctld restarted", without_controller),
    Fault("SIGTERM for all processes", terminated),
    Fault("USR2 in the evaluation", evaluating, on=(TRANSFER,)),
)


@contextmanager
def slow(run: Run) -> Iterator[None]:
    """The processes that a run has now get a quarter of their time, as on a crowded machine."""
    run.wait_until(1, 0)
    processes = [os.pidfd_open(pid) for pid in ranks(run.job).values()]
    stop = threading.Event()

    def tell(number: signal.Signals) -> None:
        for process in processes:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(process, number)

    def throttle() -> None:
        while not stop.wait(RUNS_S):
            tell(signal.SIGSTOP)
            stop.wait(STANDS_S)
            tell(signal.SIGCONT)

    thread = threading.Thread(target=throttle)
    thread.start()
    say(f"job {run.job}: slowed down to a quarter, so that it takes longer")
    try:
        yield
    finally:
        stop.set()
        thread.join()
        for process in processes:
            os.close(process)
