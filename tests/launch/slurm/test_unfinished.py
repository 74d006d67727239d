"""Runs that are not finished: what their jobs, locks and logs tell, and results.py shows."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from common import runs
from common.errors import UserError
from launch import results
from launch.slurm.states import Record
from launch.slurm.unfinished import Unfinished, progress, steps_done, unfinished
from tests.launch.slurm.fake_slurm import DOWN, FakeSlurm, error, rows

ROOT = Path(runs.__file__).parents[1]

HOLD = """
import sys, time
from pathlib import Path
from common import runs
locks = [runs.hold(Path(folder)) for folder in sys.argv[1:]]
print("held", flush=True)
time.sleep(60)
"""


def run(output_dir: Path, kind: str, name: str, job: str = "", after: str = "") -> Path:
    folder = output_dir / "runs" / kind / name
    runs.claim(folder, {"name": name})
    if job:
        cluster = "local" if job.startswith("pid") else "slurm"
        record = Record(cluster, job.removeprefix("pid"), 1, str(folder / "submitit"), "", after)
        record.write(folder)
    return folder


def start(folder: Path, times: int) -> None:
    for number in range(1, times + 1):
        (folder / "incarnations").mkdir(exist_ok=True)
        (folder / "incarnations" / f"{number:04d}.json").write_text("{}")


def state_of(output_dir: Path) -> dict[str, str]:
    return {found.name: found.state for found in unfinished(output_dir)}


def test_slurm_says_what_became_of_each_job(tmp_path: Path, played: FakeSlurm) -> None:
    names = "RUNNING COMPLETING COMPLETED FAILED TIMEOUT NODE_FAIL OUT_OF_MEMORY CANCELLED".split()
    for number, name in enumerate(names):
        run(tmp_path, "transfer", name, f"{number}")
    run(tmp_path, "transfer", "QUEUED", "20")
    run(tmp_path, "transfer", "CHILD", "21", after="0")
    run(tmp_path, "transfer", "WAITED-IN-VAIN", "22", after="3")
    run(tmp_path, "transfer", "ORPHAN", "23", after="3")
    run(tmp_path, "transfer", "FORGOTTEN", "24")
    run(tmp_path, "transfer", "HELD", "25")
    played.answers(
        "squeue",
        rows(
            *(f"{number}|{name}|None" for number, name in enumerate(names) if name[0] in "RCF"),
            "20|PENDING|Resources",
            "21|PENDING|Dependency",
            "22|CANCELLED|DependencyNeverSatisfied",
            "25|REQUEUE_HOLD|job_requeued_in_held_state",
        ),
    )
    played.answers(
        "sacct",
        rows(
            "4|TIMEOUT", "5|NODE_FAIL", "6|OUT_OF_MEMORY", "23|CANCELLED by 0", "9_[3-9%2]|X", "|"
        ),
    )
    assert state_of(tmp_path) == {
        "RUNNING": "running",
        "COMPLETING": "ending",
        "COMPLETED": "ended without a result",
        "FAILED": "failed",
        "TIMEOUT": "timed out",
        "NODE_FAIL": "lost its node",
        "OUT_OF_MEMORY": "out of memory",
        "CANCELLED": "cancelled",
        "QUEUED": "pending (Resources)",
        "CHILD": "pending (after job 0)",
        "WAITED-IN-VAIN": "cancelled (job 3, which it waits for, did not succeed)",
        "ORPHAN": "cancelled (job 3, which it waits for, did not succeed)",
        "FORGOTTEN": "stopped",
        "HELD": "requeue hold",
    }
    assert len(played.calls("squeue")) == 1
    (call,) = played.calls("sacct")
    assert sorted(call.split()[-1].split(",")) == ["23", "24", "4", "5", "6"]  # the forgotten


def test_a_lock_tells_running_from_stopped(
    tmp_path: Path, played: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "GLANCE_S", 0.2)
    folders = [run(tmp_path, "pretrain", name, job) for name, job in (
        ("debug", ""), ("local", "pid8"), ("resumed", "7"), ("forgotten", "9"),
    )]  # fmt: skip
    played.answers("squeue", rows("7|FAILED|NonZeroExitCode", "8|PENDING|Priority"))
    stopped = {"debug": "stopped", "local": "stopped", "resumed": "failed", "forgotten": "stopped"}
    assert state_of(tmp_path) == stopped
    command = [sys.executable, "-c", HOLD, *map(str, folders)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        assert state_of(tmp_path) == dict.fromkeys(stopped, "running")
        with pytest.raises(UserError, match="in use"):
            runs.hold(folders[0])  # looking did not take the lock away
        holder.kill()
    before = sorted(tmp_path.rglob("*"))
    assert state_of(tmp_path) == stopped and sorted(tmp_path.rglob("*")) == before


def test_slurm_that_does_not_answer_is_said(tmp_path: Path, played: FakeSlurm) -> None:
    run(tmp_path, "transfer", "a", "1")
    held = run(tmp_path, "transfer", "b", "2")
    played.answers("squeue", error(DOWN))
    lock = runs.hold(held)
    assert lock is not None
    assert state_of(tmp_path) == {"a": "unknown (Slurm does not answer)", "b": "running"}
    lock.release()


def test_what_is_listed_in_which_order(tmp_path: Path, played: FakeSlurm) -> None:
    for kind in ("semi", "linear", "segmentation", "transfer", "pretrain"):
        run(tmp_path, kind, "b")
        run(tmp_path, kind, "a")
    runs.finish(run(tmp_path, "transfer", "finished"), {})
    run(tmp_path, "transfer", ".aside.old")
    run(tmp_path, "arrays", "c")
    (tmp_path / "runs" / "transfer" / "empty").mkdir()
    (tmp_path / "runs" / "transfer" / "queued" / "submitit").mkdir(parents=True)
    found = [(r.kind, r.name) for r in unfinished(tmp_path)]
    kinds = ("pretrain", "transfer", "segmentation", "linear", "semi")
    expected = [(kind, name) for kind in kinds for name in "ab"]
    assert found == [*expected[:4], ("transfer", "queued"), *expected[4:]]
    assert unfinished(tmp_path / "elsewhere") == []


def test_progress_and_restarts(tmp_path: Path) -> None:
    folder = run(tmp_path, "transfer", "a", "")
    assert unfinished(tmp_path) == [Unfinished("transfer", "a", "stopped", "", "", 0)]
    start(folder, 3)
    (folder / "config.yaml").write_text("SOLVER:\n  BASE_LR: 0.02\n  MAX_ITER: 90000\nVERSION: 2\n")
    filler = "".join(json.dumps({"iteration": i, "x": "y" * 500}) + "\n" for i in range(1200))
    (folder / "metrics.jsonl").write_text(filler + '{"iteration": 1299, "loss": 1}\n{"iterat')
    assert unfinished(tmp_path) == [Unfinished("transfer", "a", "stopped", "", "1300 of 90000", 2)]
    assert steps_done(folder) == 1300


def test_progress_in_epochs(tmp_path: Path) -> None:
    folder = run(tmp_path, "pretrain", "a")
    (folder / "metrics.jsonl").write_text('{"step": 249, "epoch": 1, "loss": 3.5}\n')
    assert progress(folder) == "250"
    config = '{\n  "weights": {\n    "epochs": 800\n  },\n  "epochs": 100\n}\n'
    (folder / "config.json").write_text(config)
    assert progress(folder) == "250, epoch 2 of 100"
    (folder / "metrics.jsonl").write_text('{"step": -1, "epoch": -1, "knn": 1.0}\n')
    assert progress(folder) == "0, epoch 1 of 100"
    (folder / "metrics.jsonl").write_text("")
    assert progress(folder) == ""


def test_results_show_what_is_unfinished_beside_the_tables(
    tmp_path: Path, played: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match="no run in"):
        results.show(tmp_path)
    folder = run(tmp_path, "transfer", "half-way", "12_3")
    start(folder, 2)
    (folder / "metrics.jsonl").write_text('{"iteration": 19}\n')
    played.answers("squeue", rows("12_3|PENDING|Priority"))
    results.show(tmp_path)  # nothing is finished, and that is no mistake
    alone = capsys.readouterr().out
    assert "unfinished runs" in alone and "resumes it" in alone
    (line,) = [line for line in alone.splitlines() if "half-way" in line]
    cells = [cell.strip() for cell in line.strip("│").split("│")]
    assert cells == ["transfer", "half-way", "pending (Priority)", "12_3", "20", "1"]
    assert not (tmp_path / "results").exists()

    metrics = {"kind": "transfer", "config": "c", "method": "m"}
    runs.finish(run(tmp_path, "transfer", "whole"), metrics | {"box_AP": 38.5})
    results.show(tmp_path)
    both = capsys.readouterr().out
    assert both.index("38.5") < both.index("unfinished runs") < both.index("half-way")
    assert "whole" not in both.partition("unfinished runs")[2]

    runs.finish(folder, metrics | {"box_AP": 40.5})
    results.show(tmp_path)
    assert "unfinished" not in capsys.readouterr().out
