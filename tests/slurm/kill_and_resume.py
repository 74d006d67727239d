"""Kill pre-training with SIGKILL at random moments, resume it, and compare with an unharmed run.

    python -m tests.slurm.kill_and_resume --processes 4 --kills 20

Trains a small network on the embedded data, once undisturbed. Then the same again, killed and
started again until ``--kills`` kills have happened; whenever such a run ends, its metrics and its
last checkpoint must equal the undisturbed run's to the bit. Exit status 1 if one does not.
"""

import itertools
import json
import random
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
import tyro

ROOT = Path(__file__).resolve().parents[2]
OF_THE_MACHINE = ("images_per_s", "data_wait", "memory_gib", "eta_s")

Result = tuple[list[dict[str, Any]], dict[str, torch.Tensor]]
"""Lines of metrics, and tensors."""


@dataclass(frozen=True)
class Options:
    """The run, and how often it is killed.

    Attributes:
        kills: SIGKILLs in all.
        processes: Processes of the run.
        workers: Data-loader workers of each.
        method: Method of pre-training.
        norm: Its norm.
        epochs: Epochs of the run.
        batch_size: Over all processes.
        seed: Of the moments.
    """

    kills: int = 20
    processes: int = 1
    workers: int = 1
    method: str = "lewel_b"
    norm: str = "eman"
    epochs: int = 3
    batch_size: int = 40
    seed: int = 0

    def start(self, folder: Path) -> subprocess.Popen[bytes]:
        """Start a run, or resume it, below ``folder``."""
        size = "--queue-size 100" if self.method == "moco_v2" else "--hidden-dim 64"
        words = (
            f"--method {self.method} --norm {self.norm} --data demo --backbone resnet18 "
            f"--image-size 32 --epochs {self.epochs} --batch-size {self.batch_size} --proj-dim 32 "
            f"{size} --workers {self.workers} --log-every 1 --checkpoint-min 0.01 --knn-every 1 "
            f"--gpus-per-node 0 --tasks-per-node {self.processes} --cluster local "
            f"--name run --output-dir {folder}"
        ).split()
        command = [sys.executable, str(ROOT / "launch" / "pretrain.py"), *words]
        folder.mkdir(exist_ok=True)
        with (folder / "output.txt").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log)


def ended_within(seconds: float, process: subprocess.Popen[bytes], folder: Path) -> bool:
    """Wait, and return True if the run has come to its end; a failure ends the program."""
    with suppress(subprocess.TimeoutExpired):
        if process.wait(seconds):
            sys.exit(f"the run failed:\n{(folder / 'output.txt').read_text()[-3000:]}")
        return True
    return False


def kill(command: subprocess.Popen[bytes], moments: random.Random) -> None:
    """SIGKILL one rank of a run, then all its other processes."""
    parent = psutil.Process(command.pid)
    processes = [*parent.children(recursive=True), parent]
    ranks = [one for one in processes if "submitit.core._submit" in one.cmdline()]
    for process in [*moments.sample(ranks, min(1, len(ranks))), *processes]:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    command.wait()


def read_lines(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's ``metrics.jsonl``, without one that is being written."""
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def result(folder: Path) -> Result:
    """Metrics that do not depend on the machine, and the last checkpoint's tensors, of a run."""
    rows = [
        {name: value for name, value in row.items() if name not in OF_THE_MACHINE}
        for row in read_lines(folder)
    ]
    state = torch.load(folder / "checkpoint.pth.tar", map_location="cpu", weights_only=True)
    momenta = state["optimizer"]["state"].items()
    return rows, state["state_dict"] | {f"buffer {k}": v["momentum_buffer"] for k, v in momenta}


def difference(got: Result, expected: Result) -> str:
    """The first thing that is not equal to the bit in two results; "" if there is none."""
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
        folder, started = Path(scratch) / "unharmed", time.monotonic()
        assert ended_within(3600, options.start(folder), folder)
        seconds = time.monotonic() - started
        expected = result(folder / "runs" / "pretrain" / "run")
        print(f"undisturbed: {len(expected[0])} lines of metrics in {seconds:.1f} s", flush=True)
        kills = 0
        for number in itertools.count(1):
            folder, earlier = Path(scratch) / str(number), kills
            command = options.start(folder)
            # Every kill lets a run begin again: far enough for some progress, not to its end.
            while not ended_within(moments.uniform(0.2, 0.6) * seconds, command, folder):
                if kills < options.kills:
                    kill(command, moments)
                    kills += 1
                    command = options.start(folder)
            times = f"run {number}, killed {kills - earlier} times"
            if found := difference(result(folder / "runs" / "pretrain" / "run"), expected):
                sys.exit(f"{times}, is not the undisturbed one: {found}")
            print(f"{times}: equal to the bit", flush=True)
            if kills == options.kills:
                break
    print(
        f"{kills} kills, {options.processes} processes, {options.workers} workers each: every "
        "resumed run equals the undisturbed one to the bit"
    )


if __name__ == "__main__":
    main()
