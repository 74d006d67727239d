"""Kill pre-training with SIGKILL at random moments, resume it, and compare with an unharmed run.

    python tools/kill_and_resume.py --processes 4 --kills 20

Trains a small network on the embedded data, once undisturbed. Then the same again, killed and
started again until ``--kills`` kills have happened; whenever such a run ends, its metrics and its
last checkpoint must equal the undisturbed run's to the bit. Exit status 1 if one does not.
"""

import itertools
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import tyro

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from common import checkpoints
from common.metrics import read_lines
from pretrain import methods

Result = tuple[list[dict[str, Any]], dict[str, torch.Tensor]]
"""Lines of metrics, and tensors."""

OF_THE_MACHINE = ("images_per_s", "data_wait", "memory_gib", "eta_s")


@dataclass(frozen=True)
class Options:
    """How often, and what, to kill.

    Attributes:
        kills: SIGKILLs in all.
        processes: gloo processes of the run.
        workers: data-loader workers of each.
        method: what is trained.
        norm: its norm.
        epochs: of the run.
        batch_size: over all processes.
        seed: of the moments.
    """

    kills: int = 20
    processes: int = 1
    workers: int = 1
    method: str = "lewel_b"
    norm: str = "eman"
    epochs: int = 3
    batch_size: int = 40
    seed: int = 0


@dataclass
class Run:
    """A training that may be killed and started again."""

    options: Options
    folder: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self) -> None:
        """Start all processes, as torchrun would."""
        o = self.options
        words = (
            f"--method {o.method} --norm {o.norm} --data demo --backbone resnet18 --image-size 32 "
            f"--epochs {o.epochs} --batch-size {o.batch_size} --proj-dim 32 "
            f"--workers {o.workers} --log-every 1 --checkpoint-min 0.01 --knn-every 1 "
            f"--name run --cluster debug --output-dir {self.folder}"
        ).split()
        sizes = {"hidden_dim": 64, "queue_size": 100}
        for name in sizes.keys() & methods.find(o.method).defaults:
            words += ["--" + name.replace("_", "-"), str(sizes[name])]
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        log = (self.folder / "output.txt").open("ab")
        for rank in range(o.processes):
            environment = os.environ | {
                "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(o.processes),
                "LOCAL_WORLD_SIZE": str(o.processes), "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1",
            }  # fmt: skip
            command = [sys.executable, str(ROOT / "launch" / "pretrain.py"), *words]
            process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, start_new_session=True
            )
            self.processes.append(process)
        log.close()

    def kill(self, first: int) -> None:
        """SIGKILL one process, then the others and all their workers."""
        for process in (self.processes[first], *self.processes):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        for process in self.processes:
            process.wait()
        self.processes.clear()

    def ended_within(self, seconds: float) -> bool:
        """Wait; whether the run came to its end. An error of its own ends the program."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            statuses = [process.poll() for process in self.processes]
            if any(statuses):
                self.kill(0)
                sys.exit(f"the run failed:\n{(self.folder / 'output.txt').read_text()[-3000:]}")
            if None not in statuses:
                self.processes.clear()
                return True
            time.sleep(0.05)
        return False

    @property
    def run_folder(self) -> Path:
        """Where the training leaves its results."""
        return self.folder / "runs" / "pretrain" / "run"


def result(folder: Path) -> Result:
    """Metrics that do not depend on the machine, and the last checkpoint's tensors, of a run."""
    rows = [
        {k: v for k, v in row.items() if k not in OF_THE_MACHINE}
        for row in read_lines(folder / "metrics.jsonl")
    ]
    state = checkpoints.load(folder / "checkpoint.pth.tar")
    buffers = {
        f"buffer {index}": value["momentum_buffer"]
        for index, value in state["optimizer"]["state"].items()
    }
    return rows, state["state_dict"] | buffers


def difference(got: Result, expected: Result) -> str:
    """What is not equal to the bit in two results; "" if nothing."""
    for here, there in itertools.zip_longest(got[0], expected[0]):
        if here != there:
            return f"metrics: {here} and not {there}"
    if got[1].keys() != expected[1].keys():
        return f"tensors: {sorted(got[1].keys() ^ expected[1].keys())}"
    return next((name for name, v in got[1].items() if not torch.equal(v, expected[1][name])), "")


def main() -> None:
    """Run, kill, resume, compare."""
    options = tyro.cli(Options, description=__doc__)
    moments = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as scratch:
        unharmed = Run(options, Path(scratch) / "unharmed")
        unharmed.folder.mkdir()
        started = time.monotonic()
        unharmed.start()
        assert unharmed.ended_within(3600)
        seconds = time.monotonic() - started
        expected = result(unharmed.run_folder)
        print(f"undisturbed: {len(expected[0])} lines of metrics in {seconds:.1f} s", flush=True)
        kills = runs = 0
        while kills < options.kills:
            runs += 1
            run = Run(options, Path(scratch) / str(runs))
            run.folder.mkdir()
            mine = 0
            run.start()
            # Every kill lets a run begin again: far enough for some progress, not to its end.
            while not run.ended_within(moments.uniform(0.2, 0.6) * seconds):
                run.kill(moments.randrange(options.processes))
                mine += 1
                run.start()
                if kills + mine >= options.kills:
                    assert run.ended_within(3600)
                    break
            kills += mine
            if found := difference(result(run.run_folder), expected):
                sys.exit(f"run {runs}, killed {mine} times, is not the undisturbed one: {found}")
            print(f"run {runs}: killed {mine} times, equal to the bit", flush=True)
    print(
        f"{kills} kills, {options.processes} processes, {options.workers} workers each: every "
        "resumed run equals the undisturbed one to the bit"
    )


if __name__ == "__main__":
    main()
