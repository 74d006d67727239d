"""The faults that befall a job on a cluster, done to one that runs."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psutil

from tests.slurm.sandbox.layout import SandboxError, lives, wait_for
from tests.slurm.trial.runs import PATIENCE_S, Run

TRANSFER = "transfer FCN 1x2"
RUNS_S, STANDS_S = 0.5, 1.5  # of a run that is slowed down
DOWN_S = 6  # how long the controller is away


@dataclass(frozen=True)
class Fault:
    """One kind of fault.

    Attributes:
        name: as ``--faults`` takes it.
        befall: does it to a run that was submitted, and comes back when the run has recovered so
            far that only its end is to be waited for.
        words: added to the command.
        on: kinds of run that it is for.
    """

    name: str
    befall: Callable[[Run], None]
    words: tuple[str, ...] = ()
    on: tuple[str, ...] = ("pretrain 2x2", TRANSFER)


def preempted(run: Run) -> None:
    """A job of the higher partition takes the node, three times."""
    for time_, share in enumerate((0.15, 0.35, 0.55), 1):
        run.wait_until(time_, share)
        node = run.cluster.node(run.job)
        where = ("--partition", "high", "--exclusive", "--nodelist", node)
        other = run.cluster.submit(*where, "-o", "/dev/null", "--wrap", "sleep 3")
        run.say(f"job {other} of partition high preempts it")
        run.wait_for_start(time_ + 1)


def limited(run: Run) -> None:
    """The job meets its time limit, since it is slow."""
    with slow(run):
        run.say("has 3 minutes, of which Slurm warns 60 s before the end")
        run.wait_for_start(2)


def requeued(run: Run) -> None:
    """``scontrol requeue``, as an operator or a node's health check does it."""
    run.wait_until(1, 0.4)
    run.say("scontrol requeue")
    run.cluster.run("scontrol", "requeue", run.job)
    run.wait_for_start(2)


def killed(run: Run, start: int = 1) -> None:
    """SIGKILL for one rank; the job fails, and the same command is typed again."""
    run.wait_until(start, 0.4)
    rank = run.cluster.ranks(run.job)[1]
    run.say(f"kill -9 of rank 1 ({rank.pid})")
    rank.kill()
    state = run.wait_for_end()
    if state != "FAILED":
        raise SandboxError(f"job {run.job} did not fail but is {state}")
    run.type_command()
    run.wait_for_start(start + 1)


def lost_node(run: Run) -> None:
    """slurmd dies and the node is declared down, while the job's processes there live on."""
    run.wait_until(1, 0.15)
    node, first = run.cluster.node(run.job), run.cluster.ranks(run.job).values()
    try:
        with slow(run):  # or the first copy would be at its end before Slurm calls it lost
            run.say(f"slurmd of {node} is killed")
            run.cluster.end(f"slurmd.{node}")
            run.wait_for_start(2)
        wait_for(lambda: not any(map(lives, first)), "end of the first copy", 120)
        run.say("the first copy has seen the second, and stopped")
    finally:
        run.cluster.start()
    run.say(f"slurmd of {node} is back")


def without_controller(run: Run) -> None:
    """slurmctld ends and comes back while the job runs."""
    run.wait_until(1, 0.3)
    run.say("slurmctld is ended")
    run.cluster.end("slurmctld", signal.SIGTERM)
    time.sleep(DOWN_S)
    run.cluster.start()
    run.say("slurmctld is back")


def terminated(run: Run) -> None:
    """SIGTERM for every process, data loaders' too, as where a site preempts by that alone."""
    run.wait_until(1, 0.3)
    run.say("SIGTERM for all of it")
    run.cluster.run("scancel", "--signal=TERM", run.job)
    log = run.folder / "log.txt"
    wait_for(lambda: "saving, and going on" in log.read_text(), "word of the signal", 120)


def evaluating(run: Run) -> None:
    """The signal of a time limit or a preemption, while the trained model is tested."""
    wait_for((run.folder / "model_final.pth").exists, "trained model", PATIENCE_S)
    run.say("USR2 for all of it")
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
    run.wait_until(1)
    processes = list(run.cluster.ranks(run.job).values())
    stop = threading.Event()

    def tell(order: Callable[[psutil.Process], None]) -> None:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                order(process)

    def throttle() -> None:
        while not stop.wait(RUNS_S):
            tell(psutil.Process.suspend)
            stop.wait(STANDS_S)
            tell(psutil.Process.resume)

    thread = threading.Thread(target=throttle)
    thread.start()
    run.say("slowed down to a quarter, so that it takes longer")
    try:
        yield
    finally:
        stop.set()
        thread.join()
