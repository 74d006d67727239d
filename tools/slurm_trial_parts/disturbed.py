"""A pre-training and a transfer, undisturbed and with every fault; what came of each."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from common.metrics import read_lines
from common.runs import is_finished
from kill_and_resume import difference, result
from slurm_trial_parts.cluster import Cluster
from slurm_trial_parts.faults import FAULTS, TRANSFER, Fault
from slurm_trial_parts.runs import Run, say
from slurm_trial_parts.table import Row

SMALL = ("--gpus-per-node 0 --tasks-per-node 2 --cpus-per-gpu 1").split()
NETWORK = (
    "--method lewel_b --norm eman --data demo --backbone resnet18 --image-size 32 "
    "--batch-size 40 --proj-dim 32 --hidden-dim 64 --workers 1 --log-every 1"
).split()
STEPS_OF_AN_EPOCH = 15  # 600 images of the embedded data
MARGIN = 3.0  # points of mIoU, at least


@dataclass
class Disturbed(ABC):
    """One kind of run: once without faults, then with one after the other.

    Attributes:
        cluster: a sandbox.
        folder: for its runs.
        faults: names of those to try; all if empty.
    """

    cluster: Cluster
    folder: Path
    faults: Sequence[str] = ()
    kind: str = field(default="", init=False)
    steps: int = field(default=0, init=False)

    def rows(self) -> Iterator[Row]:
        """The undisturbed run's row, then each fault's."""
        yield self.undisturbed_row()
        for fault in FAULTS:
            if self.kind in fault.on and (not self.faults or fault.name in self.faults):
                yield self._disturbed(fault)

    def _disturbed(self, fault: Fault) -> Row:
        say(f"=== {self.kind}, {fault.name}")
        run = self.run(fault.name.replace(" ", "-"), *fault.words)
        outcome, ok = "", False
        try:
            run.type_command()
            fault.befall(run, self.steps)
            state = run.wait_for_end()
            outcome, ok = self.judged(run) if state == "COMPLETED" else (f"the job {state}", False)
        except RuntimeError as error:
            outcome = str(error)
            self.cluster.call("scancel", run.job)
        say(f"{self.kind}, {fault.name}: {outcome}")
        return Row(
            self.kind, fault.name, outcome, ok, run.starts, run.all_requeues(), run.seconds,
            self.undisturbed_s,
        )  # fmt: skip

    def _completed(self, name: str, *words: str) -> Run:
        run = self.run(name, *words)
        run.type_command()
        state = run.wait_for_end()
        if state != "COMPLETED" or not is_finished(run.folder):
            raise RuntimeError(f"the undisturbed run is not finished: job {run.job} {state}")
        return run

    @abstractmethod
    def run(self, name: str, *words: str) -> Run:
        """A run that is still to be submitted."""

    @abstractmethod
    def judged(self, run: Run) -> tuple[str, bool]:
        """What a finished run is like beside the undisturbed one, and whether it should."""

    @abstractmethod
    def undisturbed_row(self) -> Row:
        """The row of the run without faults, which is made once."""

    @property
    @abstractmethod
    def undisturbed_s(self) -> float:
        """Seconds of the run without faults."""


@dataclass
class Pretraining(Disturbed):
    """Pre-training by two processes of each node, which must come out the same to the bit."""

    epochs: int = 6
    nodes: int = 1

    def __post_init__(self) -> None:
        self.kind, self.steps = f"pretrain {self.nodes}x2", self.epochs * STEPS_OF_AN_EPOCH

    def words(self, name: str, *words: str) -> tuple[str, ...]:
        """The command, but for where it runs."""
        own = ("--epochs", str(self.epochs), "--checkpoint-min", "0.1", "--knn-every", "3")
        place = ("--name", name, "--output-dir", str(self.folder))
        return ("launch/pretrain.py", *NETWORK, *SMALL, *own, *place, *words)

    def path(self, name: str) -> Path:
        """A run folder."""
        return self.folder / "runs" / "pretrain" / name

    def run(self, name: str, *words: str) -> Run:
        where = ("--cluster", "slurm", "--nodes", str(self.nodes))
        return Run(self.cluster, self.words(name, *where, *words), self.path(name))

    @cached_property
    def undisturbed(self) -> Run:
        """The run without faults."""
        say(f"=== {self.kind}, undisturbed")
        return self._completed("undisturbed")

    @property
    def undisturbed_s(self) -> float:
        return self.undisturbed.seconds

    def undisturbed_row(self) -> Row:
        run = self.undisturbed
        lines = len(read_lines(run.folder / "metrics.jsonl"))
        words = f"{self.steps} steps, {lines} lines of metrics"
        return Row(self.kind, "undisturbed", words, True, run.starts, run.all_requeues(),
                   run.seconds)  # fmt: skip

    def judged(self, run: Run) -> tuple[str, bool]:
        return self.compared(run.folder)

    def compared(self, folder: Path) -> tuple[str, bool]:
        """How a finished run differs from the undisturbed one, and whether it does not."""
        found = difference(result(folder), result(self.undisturbed.folder))
        return found or "equal to the bit", not found


@dataclass
class Transfer(Disturbed):
    """Segmentation by two processes: all iterations, and a score like three undisturbed seeds'."""

    iterations: int = 150

    def __post_init__(self) -> None:
        self.kind, self.steps = TRANSFER, self.iterations

    def run(self, name: str, *words: str) -> Run:
        own = ("--config", "demo_voc_R_18_FCN", "--weights", "none", "--cluster", "slurm", *SMALL)
        place = ("--name", name, "--output-dir", str(self.folder))
        overrides = ("SOLVER.MAX_ITER", str(self.iterations), "SOLVER.CHECKPOINT_PERIOD", "20",
                     "DATALOADER.NUM_WORKERS", "1")  # fmt: skip
        folder = self.folder / "runs" / "segmentation" / name
        command = ("launch/transfer.py", *own, *place, *words, *overrides)
        return Run(self.cluster, command, folder)

    @cached_property
    def undisturbed(self) -> list[Run]:
        """The runs without faults: three seeds."""
        runs = []
        for seed in range(3):
            say(f"=== transfer FCN 1x2, undisturbed, seed {seed}")
            runs.append(self._completed(f"seed-{seed}", "--seed", str(seed)))
        return runs

    @property
    def undisturbed_s(self) -> float:
        return sum(run.seconds for run in self.undisturbed) / len(self.undisturbed)

    def undisturbed_row(self) -> Row:
        scores = [_final(run.folder)["mIoU"] for run in self.undisturbed]
        low, high = self.bounds()
        words = (
            f"mIoU {', '.join(f'{score:.2f}' for score in scores)}: accepted {low:.2f} to "
            f"{high:.2f}, wider on each side by as much as they differ, at least {MARGIN:g}"
        )
        return Row(self.kind, "undisturbed, 3 seeds", words, True, 1, 0, self.undisturbed_s)

    def bounds(self) -> tuple[float, float]:
        """What a score like theirs is."""
        scores = [_final(run.folder)["mIoU"] for run in self.undisturbed]
        margin = max(max(scores) - min(scores), MARGIN)
        return min(scores) - margin, max(scores) + margin

    def judged(self, run: Run) -> tuple[str, bool]:
        expected, found = (_iterations(r.folder) for r in (self.undisturbed[0], run))
        if found != expected:
            return f"logged iterations {found} and not {expected}", False
        score = _final(run.folder)["mIoU"]
        low, high = self.bounds()
        words = f"all {self.iterations} iterations, each line once, mIoU {score:.2f}"
        return words, low <= score <= high


def _final(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return found


def _iterations(folder: Path) -> list[int]:
    """The logged iterations, each as often as it is there."""
    return [row["iteration"] for row in read_lines(folder / "metrics.jsonl")]
