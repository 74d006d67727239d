"""The trials without a fault of the cluster's: a pipeline, an array, this machine, a failure."""

import csv
import time
from collections.abc import Iterator
from pathlib import Path

from tests.slurm.kill_and_resume import ROOT
from tests.slurm.sandbox.cluster import Sandbox
from tests.slurm.sandbox.layout import wait_for
from tests.slurm.trial.disturbed import NETWORK, SMALL, Pretraining
from tests.slurm.trial.runs import PATIENCE_S, Run, following, is_finished, record, say, type_in
from tests.slurm.trial.table import Row

RATES = ("0.01", "0.02", "0.03", "0.04", "0.05", "0.06")
AT_ONCE = 2


def pipeline(cluster: Sandbox, folder: Path) -> Iterator[Row]:
    """Pre-training on 2 nodes × 2 tasks, and a detector from what it leaves."""
    say("=== pipeline 2x2")
    yaml = detector(folder, "from_pretraining", 40)
    run, child = _chained(cluster, folder, yaml, "--nodes", "2")
    parent = run.wait_for_end()
    table = folder / "results" / "transfer.csv"
    if parent == "COMPLETED":
        wait_for(lambda: _rows(table), "row of the table", PATIENCE_S)
    seconds = time.monotonic() - run.started
    state = cluster.wait_for_end(child)
    say(f"job {child}: {state}, {len(_rows(table))} row after {seconds:.0f} s")
    (row,) = _rows(table)
    outcome = f"{row['config']} from {row['method']}, box AP {row['box_AP']}, job {state}"
    ok = is_finished(run.folder) and state == "COMPLETED"
    what = "transfer after it, submit to CSV"
    yield Row("pipeline 2x2", what, 1, 0, seconds, None, outcome, ok)


def broken(cluster: Sandbox, folder: Path) -> Iterator[Row]:
    """A pre-training that fails, and the job that waits for it."""
    say("=== broken pipeline")
    run, child = _chained(cluster, folder, detector(folder, "never", 20), "--lr", "1e30")
    states = [run.wait_for_end(), cluster.wait_for_end(child)]
    said = type_in(cluster, "launch/results.py", "--output-dir", str(folder))
    output = "".join(p.read_text() for p in run.folder.glob("submitit/*/*_0_log.out"))
    named = child in output
    shown = f"(job {run.job}, which it waits for, did not succeed)" in said
    print(said, flush=True)
    outcome = (
        f"jobs {' and '.join(states)}; the first one's log {'names' if named else 'is silent on'} "
        f"the other, and results.py {'says' if shown else 'does not say'} why"
    )
    ok = states == ["FAILED", "CANCELLED"] and named and shown
    yield Row("broken pipeline", "--lr 1e30 with --then", 1, 0, run.seconds, None, outcome, ok)


def _chained(cluster: Sandbox, folder: Path, yaml: Path, *words: str) -> tuple[Run, str]:
    """A pre-training that was submitted, and the transfer job that waits for it."""
    own = ("--epochs", "2", "--knn-every", "0", "--name", "run", "--cluster", "slurm")
    command = ("launch/pretrain.py", *NETWORK, *SMALL, *own, "--output-dir", str(folder), *words)
    run = Run(cluster, (*command, "--then", str(yaml)), folder / "runs" / "pretrain" / "run")
    run.type_command()
    child = following(run.folder)
    say(f"job {child['job_id']}: submitted, waits for job {run.job}")
    return run, child["job_id"]


def array(cluster: Sandbox, folder: Path) -> Iterator[Row]:
    """Six learning rates as one array, two at a time."""
    say("=== array")
    yaml = detector(folder, "sweep", 10)
    started = time.monotonic()
    type_in(
        cluster, "launch/transfer.py", "--config", str(yaml), "--weights", "none", "--cluster",
        "slurm", *SMALL[:2], "--cpus-per-gpu", "1", "--output-dir", str(folder),
        "--array-parallelism", str(AT_ONCE), "--lr", *RATES,
    )  # fmt: skip
    jobs = sorted(record(path.parent)["job_id"] for path in folder.glob("runs/*/*/job.json"))
    say(f"jobs {', '.join(jobs)}: submitted")
    most = moments = 0

    def is_over() -> bool:
        nonlocal most, moments
        queue = cluster.run("squeue", "-h", "-r", "-o", "%T").split()
        most, moments = max(most, queue.count("RUNNING")), moments + 1
        return not queue

    wait_for(is_over, "end of the array", PATIENCE_S)
    rows = _rows(folder / "results" / "transfer.csv")
    rates = sorted(float(row["lr"]) for row in rows)
    outcome = f"{len(rows)} rows, {most} at once at most, seen {moments} times"
    ok = rates == [float(rate) for rate in RATES] and most == AT_ONCE
    seconds, what = time.monotonic() - started, f"--array-parallelism {AT_ONCE}"
    yield Row("array of 6", what, None, None, seconds, None, outcome, ok)


def local(cluster: Sandbox, pretraining: Pretraining) -> Iterator[Row]:
    """Two processes of this machine, and the metrics of two on a node of Slurm."""
    undisturbed_s = pretraining.undisturbed.seconds
    say("=== local")
    run = pretraining.run("local", cluster="local")
    type_in(cluster, *run.words)
    seconds = time.monotonic() - run.started
    outcome, ok = pretraining.compared(run.folder)
    kind, what = "pretrain local, 2 tasks", "beside Slurm 1x2"
    yield Row(kind, what, 1, None, seconds, undisturbed_s, outcome, ok)


def detector(folder: Path, name: str, iterations: int) -> Path:
    """A user's own YAML: the demo's detector, for fewer iterations."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.yaml"
    path.write_text(
        f'_BASE_: "{ROOT / "det_configs" / "demo_voc_R_18_FPN.yaml"}"\n'
        f"SOLVER:\n  MAX_ITER: {iterations}\n  STEPS: ({iterations * 3 // 4},)\n"
        "TEST:\n  PRECISE_BN:\n    NUM_ITER: 2\n"
        "INPUT:\n  MIN_SIZE_TRAIN: (64,)\n  MIN_SIZE_TEST: 64\n"
    )
    return path


def _rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines())) if path.exists() else []
