"""A pre-training and a transfer, undisturbed and with every fault; what came of each."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from common.metrics import read_lines
from common.runs import is_finished
from kill_and_resume import Result, difference, result
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
SCORES = ("mIoU", "fwIoU", "IoU-", "mACC", "pACC")


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
        yield self._undisturbed_row()
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
            if state == "COMPLETED":
                outcome, ok = self.compared(run.folder)
                outcome += self.score(run.folder)
            else:
                outcome = f"the job {state}"
        except RuntimeError as error:
            outcome = str(error)
            self.cluster.call("scancel", run.job)
        say(f"{self.kind}, {fault.name}: {outcome}")
        return Row(
            self.kind, fault.name, outcome, ok, run.starts, run.all_requeues(), run.seconds,
            self.undisturbed.seconds,
        )  # fmt: skip

    @cached_property
    def undisturbed(self) -> Run:
        """The run without faults, which is made once."""
        say(f"=== {self.kind}, undisturbed")
        run = self.run("undisturbed")
        run.type_command()
        state = run.wait_for_end()
        if state != "COMPLETED" or not is_finished(run.folder):
            raise RuntimeError(f"the undisturbed run is not finished: job {run.job} {state}")
        return run

    def compared(self, folder: Path) -> tuple[str, bool]:
        """How a finished run differs from the undisturbed one, and whether it does not."""
        found = difference(self.result(folder), self.result(self.undisturbed.folder))
        return found or "equal to the bit", not found

    def _undisturbed_row(self) -> Row:
        run = self.undisturbed
        lines = len(read_lines(run.folder / "metrics.jsonl"))
        words = f"{self.steps} steps, {lines} lines of metrics{self.score(run.folder)}"
        return Row(self.kind, "undisturbed", words, True, run.starts, run.all_requeues(),
                   run.seconds)  # fmt: skip

    @abstractmethod
    def run(self, name: str, *words: str) -> Run:
        """A run that is still to be submitted."""

    @abstractmethod
    def result(self, folder: Path) -> Result:
        """What a finished run must have in common with the undisturbed one."""

    def score(self, folder: Path) -> str:
        """What a finished run reached, for its row."""
        return ""


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

    def result(self, folder: Path) -> Result:
        return result(folder)


@dataclass
class Transfer(Disturbed):
    """Segmentation by two processes, which must come out the same to the bit."""

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

    def result(self, folder: Path) -> Result:
        """Its lines but for the losses, medians of what was seen since the start; its scores."""
        rows = read_lines(folder / "metrics.jsonl")
        lines = [{"iteration": row["iteration"], "lr": row["lr"]} for row in rows]
        scores = {k: v for k, v in _final(folder).items() if k.startswith(SCORES)}
        state = torch.load(folder / "model_final.pth", map_location="cpu", weights_only=False)
        assert lines and scores, f"nothing is in the metrics of {folder}"
        momenta = state["trainer"]["optimizer"]["state"]
        buffers = {f"buffer {k}": v["momentum_buffer"] for k, v in momenta.items()}
        return [*lines, scores], state["model"] | buffers

    def score(self, folder: Path) -> str:
        return f", mIoU {_final(folder)['mIoU']:.2f}"


def _final(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return found
