"""results.py --watch: what runs and how far, what has ended and why; the time to go."""

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pretrain.report
from common import runs
from launch.options import CONFIGS
from launch.slurm.last_error import last_error
from launch.slurm.states import Record
from launch.slurm.unfinished import to_go_s
from launch.watching import in_words
from pretrain.report import Reporter
from tests.alone import ALONE

ROOT = CONFIGS.parent
RESULTS = [sys.executable, "-u", str(ROOT / "launch" / "results.py"), "--watch"]
SMALL = (
    "--data demo --backbone resnet18 --image-size 32 --batch-size 20 --proj-dim 32 --hidden-dim 64 "
    "--norm eman --knn-every 0 --log-every 1 --gpus-per-node 0 --workers 0 --cluster local"
)
HOLD = """
import sys, time
from pathlib import Path
from common import runs
lock = runs.hold(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Path]:
    """The folder of a transfer that a process holds; it has done 30 of 90 iterations."""
    folder = tmp_path / "runs" / "transfer" / "mine"
    runs.claim(folder, {"name": "mine"})
    (folder / "config.yaml").write_text("SOLVER:\n  MAX_ITER: 90\n")
    (folder / "metrics.jsonl").write_text('{"iteration": 29, "time": 90.0}\n')
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        yield folder
        holder.kill()


def test_time_to_go_is_of_steps_and_not_of_what_came_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that resumed after a day, with a minute until its first step."""
    clock = [0.0]
    monkeypatch.setattr(pretrain.report.time, "monotonic", lambda: clock[0])

    def train(first: int, last: int, start_s: float) -> None:
        reporter = Reporter(tmp_path, first, 1000, 20, ALONE)
        clock[0] += start_s
        for step in range(first, last):
            clock[0] += 2.0
            if (step + 1) % 10 == 0:
                reporter.write({"step": step, "epoch": 0, "loss": 1.0})
        reporter.close()

    train(0, 200, start_s=60)
    assert to_go_s(tmp_path) == pytest.approx(800 * 2.0, rel=0.01)
    clock[0] += 86_400
    train(150, 160, start_s=60)  # back to the checkpoint
    assert to_go_s(tmp_path) == pytest.approx(840 * 2.0, rel=0.01)
    train(160, 1000, start_s=0)
    assert to_go_s(tmp_path) == 0


def test_time_to_go_of_a_detector(tmp_path: Path) -> None:
    assert to_go_s(tmp_path) is None
    rows = [{"iteration": 20 * k - 1, "time": 0.5, "eta_seconds": 9.0} for k in range(1, 11)]
    rows.append({"iteration": 219, "time": 30.0})  # the first line after a start
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "metrics.jsonl").write_text(text + '{"iteration": 2')
    assert to_go_s(tmp_path) is None  # it is not known how many there are
    (tmp_path / "config.yaml").write_text("SOLVER:\n  MAX_ITER: 1220\n")
    assert to_go_s(tmp_path) == 500


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59.4, "59 s"), (60, "1 min"), (3600, "1 h"), (11_100, "3 h 5 min"),
     (187_200, "2 d 4 h"), (86_400 * 3, "3 d")],
)  # fmt: skip
def test_times_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


TRACEBACK = """Traceback (most recent call last):
  File "x.py", line 1, in <module>
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB
srun: error: n1: task 0: Exited with exit code 1
"""
OOM = """slurmstepd: error: Detected 1 oom_kill event in StepId=8.0. Some of the processes died.
srun: error: n1: task 0: Out Of Memory
slurmstepd: error: *** STEP 8.0 ON n1 CANCELLED AT 2024 ***
srun: error: n1: tasks 0-1: Exited with exit code 1
"""


@pytest.mark.parametrize(
    ("outputs", "line"),
    [
        ({"0_log.err": TRACEBACK}, "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate "
         "2.00 GiB"),
        ({"0_log.err": "ValueError: second\n", "0_result.pkl": "", "1_log.err": "KeyError: 'x'\n"},
         "KeyError: 'x'"),
        ({"0_log.err": TRACEBACK, "1_error.txt": "the loss was not finite."},
         "the loss was not finite."),
        ({"0_log.err": OOM}, "srun: error: n1: task 0: Out Of Memory"),
        ({"0_log.err": "srun: error: n1: task 0: Killed\n"}, "srun: error: n1: task 0: Killed"),
        ({"0_log.err": "a note\n"}, ""),
        ({}, ""),
    ],
)  # fmt: skip
def test_the_last_error_of_a_job(tmp_path: Path, outputs: dict[str, str], line: str) -> None:
    for name, text in outputs.items():
        (tmp_path / f"8_{name}").write_text(text)
    assert last_error(Record("slurm", "8", 2, str(tmp_path), "")) == line


def test_a_local_run_is_followed_to_its_end_beside_one_that_failed(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "launch" / "pretrain.py"), *SMALL.split()]
    command += ["--output-dir", str(tmp_path)]
    failed = subprocess.run(
        [*command, *"--lr 1e30 --epochs 1 --name bad".split()], capture_output=True
    )
    assert failed.returncode == 2
    with subprocess.Popen([*command, *"--epochs 1 --name good".split()], stdout=-1) as training:
        assert training.stdout is not None
        while b"step 0:" not in training.stdout.readline():
            assert training.poll() is None
        watched = subprocess.run(
            [*RESULTS, "--every", "0.5", "--output-dir", str(tmp_path)],
            capture_output=True,
            text=True,
        )
        training.communicate()
    rows = [line.split("│") for line in watched.stdout.splitlines() if line.startswith("│")]
    good = [[cell.strip() for cell in row[1:-1]] for row in rows if " good " in row[2]]
    (bad,) = {tuple(cell.strip() for cell in row[1:-1]) for row in rows if " bad " in row[2]}
    assert (watched.returncode, watched.stderr, training.returncode) == (0, "", 0)
    assert bad[3].startswith("stopped: the loss was not finite at step") and bad[5] == ""
    assert {row[3] for row in good} == {"running", "finished"} and good[-1][3] == "finished"
    assert any(row[4].endswith(" of 1") and row[5].endswith((" s", " min")) for row in good)
    assert watched.stdout.endswith(
        "nothing is queued or running; launch/results.py shows the tables\n"
    )


def test_on_a_terminal_it_stays_in_place_until_ctrl_c(held: Path) -> None:
    master, slave = pty.openpty()
    command = [*RESULTS, "--every", "0.2", "--output-dir", str(held.parents[2])]
    environment = os.environ | {"COLUMNS": "100", "LINES": "30", "TERM": "xterm"}
    with subprocess.Popen(command, stdout=slave, stderr=slave, env=environment) as watching:
        os.close(slave)
        shown = ""
        while shown.count("30 of 90") < 3:
            shown += os.read(master, 4096).decode(errors="replace")
        watching.send_signal(signal.SIGINT)
        while "no longer watching" not in shown:
            shown += os.read(master, 4096).decode(errors="replace")
        assert watching.wait(20) == 130
    os.close(master)
    assert "running" in shown and "1 h 30 min" in shown
    assert "\x1b[1A" in shown  # the cursor goes up again


def test_seconds_that_are_none_are_refused(tmp_path: Path) -> None:
    done = subprocess.run([*RESULTS, "--every", "0"], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, "error: --every 0: must be more than 0 seconds.\n")
