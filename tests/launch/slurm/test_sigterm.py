"""SIGTERM outside Slurm: a command of people's own, in processes of its own, saves and ends."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from common.runs import is_finished
from launch.pretrain import run
from launch.slurm.unfinished import steps_done, unfinished
from tests.slurm.kill_and_resume import difference, result

ROOT = Path(__file__).parents[3]
WORDS = (
    "--data demo --backbone resnet18 --image-size 32 --batch-size 8 --proj-dim 16 --hidden-dim 32 "
    "--norm eman --knn-every 0 --log-every 1 --checkpoint-min 100 --workers 1 --epochs 1 "
    "--gpus-per-node 0 --name run"
)
Start = Callable[[Path, str], subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a command as a script does in the background, where SIGINT is ignored."""
    started = []

    def call(output_dir: Path, words: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(ROOT / "launch" / "pretrain.py"), *WORDS.split()]
        command += [*words.split(), "--output-dir", str(output_dir)]
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        signal.signal(signal.SIGINT, before)
        started.append(process)
        return process

    yield call
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def stopped(process: subprocess.Popen[str], folder: Path, steps: int) -> str:
    """What a command prints that is sent SIGTERM after so many steps."""
    until = time.monotonic() + 240
    while steps_done(folder) < steps:
        assert process.poll() is None and time.monotonic() < until, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 143, output
    assert not is_finished(folder)
    assert [one.state for one in unfinished(folder.parents[2])] == ["stopped"]
    # Between two steps, and not only at the end of an epoch, which is what there is otherwise.
    newest = max(folder.glob("checkpoint_*.pth.tar"))
    assert int(newest.name.split("_")[2].split(".")[0]) == steps_done(folder) >= steps
    return output


def finished(output_dir: Path, where: str) -> Any:
    """The result of the command, typed again or at first."""
    folder = run([*WORDS.split(), *where.split(), "--output-dir", str(output_dir)])
    assert folder is not None
    return result(folder)


def left_in(session: int) -> list[str]:
    """The command lines of what lives on of a command's session."""
    listed = subprocess.run(["ps", "-s", f"{session}", "-o", "args="], capture_output=True)
    return listed.stdout.decode().splitlines()


@pytest.mark.parametrize("where", ["--cluster local --tasks-per-node 2", "--cluster debug"])
def test_sigterm_ends_a_command_that_ignores_ctrl_c(
    tmp_path: Path, demo_root: Path, start: Start, where: str
) -> None:
    folder = tmp_path / "told" / "runs" / "pretrain" / "run"
    command = start(tmp_path / "told", where)
    output = stopped(command, folder, 3)
    assert "SIGTERM ends this job; the same command resumes it" in output
    assert ("stopped; the same command resumes\n" in output) == ("local" in where)
    assert left_in(command.pid) == []
    if "debug" in where:  # which resumes in the same way
        return
    last = finished(tmp_path / "told", where)
    assert difference(last, finished(tmp_path / "undisturbed", where)) == ""
