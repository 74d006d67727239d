"""A pre-training and a transfer, undisturbed and with every fault, and their results."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from tests.slurm.kill_and_resume import Result, difference, read_lines, result
from tests.slurm.sandbox.cluster import Sandbox
from tests.slurm.sandbox.layout import SandboxError
from tests.slurm.trial.faults import FAULTS, TRANSFER, Fault
from tests.slurm.trial.runs import Run, is_finished, say
from tests.slurm.trial.table import Row

SMALL = ("--gpus-per-node 0 --tasks-per-node 2 --cpus-per-gpu 1").split()
NETWORK = (
    "--method lewel_b --norm eman --data demo --backbone resnet18 --image-size 32 "
    "--batch-size 40 --proj-dim 32 --hidden-dim 64 --workers 1 --log-every 1"
).split()
SCORES = ("mIoU", "fwIoU", "IoU-", "mACC", "pACC")


@dataclass
class Disturbed(ABC):
    """One kind of run: once without faults, then with one after the other.

    Attributes:
        cluster: a sandbox.
        folder: for its runs.
        faults: names of those to try; all if empty.
        kind: its name in the table.
    """

    cluster: Sandbox
    folder: Path
    faults: Sequence[str] = ()
    kind: str = field(default="", init=False)

    def rows(self) -> Iterator[Row]:
        """The undisturbed run's row, then each fault's."""
        run = self.undisturbed
        lines = len(read_lines(run.folder))
        outcome = f"{run.total} steps, {lines} lines of metrics{self.score(run.folder)}"
        starts, requeues = run.starts, run.requeues
        yield Row(self.kind, "undisturbed", starts, requeues, run.seconds, None, outcome, True)
        for fault in FAULTS:
            if self.kind in fault.on and (not self.faults or fault.name in self.faults):
                yield self._disturbed(fault)

    def _disturbed(self, fault: Fault) -> Row:
        say(f"=== {self.kind}, {fault.name}")
        run = self.run(fault.name.replace(" ", "-"), *fault.words)
        ok = False
        try:
            run.type_command()
            fault.befall(run)
            state = run.wait_for_end()
            if state == "COMPLETED":
                outcome, ok = self.compared(run.folder)
                outcome += self.score(run.folder)
            else:
                outcome = f"the job {state}"
        except SandboxError as error:
            outcome = str(error)
            self.cluster.call("scancel", run.job)
        say(f"{self.kind}, {fault.name}: {outcome}")
        times = run.seconds, self.undisturbed.seconds
        return Row(self.kind, fault.name, run.starts, run.requeues, *times, outcome, ok)

    @cached_property
    def undisturbed(self) -> Run:
        """The run without faults, which is made once."""
        say(f"=== {self.kind}, undisturbed")
        run = self.run("undisturbed")
        run.type_command()
        state = run.wait_for_end()
        if state != "COMPLETED" or not is_finished(run.folder):
            raise SandboxError(f"the undisturbed run is not finished: job {run.job} {state}")
        return run

    def compared(self, folder: Path) -> tuple[str, bool]:
        """The difference of a finished run from the undisturbed one, and True if there is none."""
        found = difference(self.result(folder), self.result(self.undisturbed.folder))
        return found or "equal to the bit", not found

    @abstractmethod
    def run(self, name: str, *words: str) -> Run:
        """A run that is still to be submitted."""

    @abstractmethod
    def result(self, folder: Path) -> Result:
        """The part of a finished run that must equal the undisturbed one's."""

    def score(self, folder: Path) -> str:
        """The score of a finished run, for its row."""
        return ""


@dataclass
class Pretraining(Disturbed):
    """Pre-training by two processes of each node, which must come out the same to the bit."""

    epochs: int = 6
    nodes: int = 1
    epoch_steps: int = 15  # of the 600 images of the embedded data

    def __post_init__(self) -> None:
        self.kind = f"pretrain {self.nodes}x2"

    def run(self, name: str, *words: str, cluster: str = "slurm") -> Run:
        own = f"--epochs {self.epochs} --checkpoint-min 0.1 --knn-every 3 --name {name}".split()
        where = ("--cluster", cluster, "--nodes", str(self.nodes), "--output-dir", str(self.folder))
        command = ("launch/pretrain.py", *NETWORK, *SMALL, *own, *where, *words)
        folder = self.folder / "runs" / "pretrain" / name
        return Run(self.cluster, command, folder, self.epochs * self.epoch_steps)

    def result(self, folder: Path) -> Result:
        return result(folder)


@dataclass
class Transfer(Disturbed):
    """Segmentation by two processes, which must come out the same to the bit."""

    iterations: int = 150

    def __post_init__(self) -> None:
        self.kind = TRANSFER

    def run(self, name: str, *words: str) -> Run:
        own = ("--config", "demo_voc_R_18_FCN", "--weights", "none", "--cluster", "slurm", *SMALL)
        place = ("--name", name, "--output-dir", str(self.folder))
        overrides = (
            f"SOLVER.MAX_ITER {self.iterations} SOLVER.CHECKPOINT_PERIOD 20 "
            "DATALOADER.NUM_WORKERS 1"
        ).split()
        command = ("launch/transfer.py", *own, *place, *words, *overrides)
        folder = self.folder / "runs" / "segmentation" / name
        return Run(self.cluster, command, folder, self.iterations)

    def result(self, folder: Path) -> Result:
        """Its lines but for the losses, medians of what was seen since the start; its scores."""
        lines = [{"iteration": r["iteration"], "lr": r["lr"]} for r in read_lines(folder)]
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
