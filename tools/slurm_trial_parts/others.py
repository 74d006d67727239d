"""The trials without a fault of the cluster's: a pipeline, an array, this machine, a failure."""

import csv
import time
from collections.abc import Iterator
from pathlib import Path

from common.runs import is_finished
from launch.cluster import slurm
from launch.cluster.records import Record
from slurm_trial_parts.cluster import ROOT, Cluster, wait_for
from slurm_trial_parts.disturbed import NETWORK, SMALL, Pretraining
from slurm_trial_parts.runs import PATIENCE_S, Run, say, type_in, wait_for_end
from slurm_trial_parts.table import Row

RATES = ("0.01", "0.02", "0.03", "0.04", "0.05", "0.06")
AT_ONCE = 2


def pipeline(cluster: Cluster, folder: Path) -> Iterator[Row]:
    """Pre-training on 2 nodes × 2 tasks, and a detector from what it leaves."""
    kind = "pipeline 2x2"
    say(f"=== {kind}")
    run, child = _chained(
        cluster, folder, _detector(folder, "from_pretraining", 40), "--nodes", "2"
    )
    parent = run.wait_for_end()
    table = folder / "results" / "transfer.csv"
    if parent == "COMPLETED":
        wait_for(lambda: _rows(table), "row of the table", PATIENCE_S)
    seconds = time.monotonic() - run.started
    state = wait_for_end(child.job_id)
    say(f"job {child.job_id}: {state}, {len(_rows(table))} row after {seconds:.0f} s")
    (row,) = _rows(table)
    words = f"{row['config']} from {row['method']}, box AP {row['box_AP']}, job {state}"
    ok = is_finished(run.folder) and state == "COMPLETED" and child.after == run.job
    yield Row(kind, "transfer after it, submit to CSV", words, ok, 1, 0, seconds)


def broken(cluster: Cluster, folder: Path) -> Iterator[Row]:
    """A pre-training that fails, and the job that waits for it."""
    kind = "broken pipeline"
    say(f"=== {kind}")
    run, child = _chained(cluster, folder, _detector(folder, "never", 20), "--lr", "1e30")
    states = [run.wait_for_end(), wait_for_end(child.job_id)]
    said = type_in(cluster, "launch/results.py", "--output-dir", str(folder))
    output = "".join(p.read_text() for p in run.folder.glob("submitit/*/*_0_log.out"))
    named = child.job_id in output
    shown = f"(job {run.job}, which it waits for, did not succeed)" in said
    print(said, flush=True)
    words = (
        f"jobs {' and '.join(states)}; the first one's log {'names' if named else 'is silent on'} "
        f"the other, and results.py {'says' if shown else 'does not say'} why"
    )
    ok = states == ["FAILED", "CANCELLED"] and named and shown
    yield Row(kind, "--lr 1e30 with --then", words, ok, 1, 0, run.seconds)


def _chained(cluster: Cluster, folder: Path, yaml: Path, *words: str) -> tuple[Run, Record]:
    """A pre-training that was submitted, and the transfer job that waits for it."""
    run = _pretraining(cluster, folder, *words, "--then", str(yaml))
    run.type_command()
    child = _waiting(folder)
    say(f"job {child.job_id}: submitted, waits for job {child.after}")
    return run, child


def array(cluster: Cluster, folder: Path) -> Iterator[Row]:
    """Six learning rates as one array, two at a time."""
    say("=== array")
    yaml = _detector(folder, "sweep", 10)
    started = time.monotonic()
    type_in(
        cluster, "launch/transfer.py", "--config", str(yaml), "--weights", "none", "--cluster",
        "slurm", *SMALL[:2], "--cpus-per-gpu", "1", "--output-dir", str(folder),
        "--array-parallelism", str(AT_ONCE), "--lr", *RATES,
    )  # fmt: skip
    found = (Record.read(path.parent) for path in folder.glob("runs/transfer/*/job.json"))
    jobs = sorted(record.job_id for record in found if record is not None)
    say(f"jobs {', '.join(jobs)}: submitted")
    most, moments = 0, 0
    while True:
        states = slurm.states(jobs).values()
        running = sum(state.name == "RUNNING" for state in states)
        if running > most:
            say(f"{running} of {len(jobs)} run at once")
        most, moments = max(most, running), moments + 1
        if not any(state.live for state in states) or time.monotonic() - started > PATIENCE_S:
            break
        time.sleep(0.5)
    rows = _rows(folder / "results" / "transfer.csv")
    rates = sorted({float(row["lr"]) for row in rows})
    words = f"{len(rows)} rows, {most} at once at most, seen {moments} times"
    ok = rates == [float(rate) for rate in RATES] and len(rows) == len(RATES) and most == AT_ONCE
    yield Row("array of 6", f"--array-parallelism {AT_ONCE}", words, ok, None, None,
              time.monotonic() - started)  # fmt: skip


def local(cluster: Cluster, pretraining: Pretraining) -> Iterator[Row]:
    """Two processes of this machine, and the metrics of two on a node of Slurm."""
    undisturbed_s = pretraining.undisturbed.seconds
    say("=== local")
    started = time.monotonic()
    type_in(cluster, *pretraining.words("local", "--cluster", "local"))
    words, ok = pretraining.compared(pretraining.path("local"))
    seconds = time.monotonic() - started
    yield Row("pretrain local, 2 tasks", "beside Slurm 1x2", words, ok, 1, None, seconds,
              undisturbed_s)  # fmt: skip


def _pretraining(cluster: Cluster, folder: Path, *words: str) -> Run:
    own = ("--epochs", "2", "--knn-every", "0", "--name", "run", "--cluster", "slurm")
    command = ("launch/pretrain.py", *NETWORK, *SMALL, *own, "--output-dir", str(folder), *words)
    return Run(cluster, command, folder / "runs" / "pretrain" / "run")


def _detector(folder: Path, name: str, iterations: int) -> Path:
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


def _waiting(folder: Path) -> Record:
    """The job that waits for another; there is one."""
    (path,) = folder.glob("runs/awaiting/*/job.json")
    record = Record.read(path.parent)
    assert record is not None
    return record


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
