"""Evidence that pre-training helps, over seeds: ``make proof``.

Every start has the same steps, and the best of the same learning rates, chosen on a seed that is
not reported. What is there already is not run again, so that a proof that was ended goes on.
"""

import functools
import json
import multiprocessing
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":  # not launch/, where ``import pretrain`` would find another file
    sys.path[0] = str(ROOT)

from common.errors import UserError, command
from common.files import atomic_write
from launch.console import print_table
from launch.options import parse

CHOICE = 100  # the seed on which rates are chosen
RATES = (0.02, 0.05, 0.1)
KNN = "kNN accuracy"


@dataclass(frozen=True)
class Command:
    """Compare what starts from LEWEL_B, BYOL, MoCo v2 and from nothing, on drawn images.

    Attributes:
        output_dir: Folder for starts/, runs/ and results/.
        seeds: Seeds that are reported. At least 2.
        processes: Jobs at once, each of one thread.
    """

    output_dir: Path = ROOT / "proof"
    seeds: int = 5
    processes: int = 2


def score(output_dir: Path, name: str, seed: int, measure: str = "", lr: float = 0.0) -> float:
    """A start's kNN accuracy, or its mIoU by a config at a learning rate, in percent.

    Without a measure the start is made; for a process of its own.
    """
    import torch

    from launch.evidence import Bench

    torch.set_num_threads(1)
    bench = Bench(output_dir, ("--cluster", "debug", "--gpus-per-node", "0"))
    if not measure:
        bench.start(name, seed)
        return 0.0
    if measure == KNN:
        return 100 * float(bench.knn(name, seed).double().mean())
    folder = bench.transfer(name, seed, measure, "--lr", str(lr))
    return float(json.loads((folder / "metrics.json").read_text())["mIoU"])


def t_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean of paired differences, and the ends of its 95 % t interval."""
    from scipy import stats

    mean = sum(values) / len(values)
    half = float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))
    return mean, mean - half, mean + half


def compare(options: Command, pool: ProcessPoolExecutor) -> list[list[Any]]:
    """Run everything; rows of start, measure, learning rate, and the score of each seed."""
    from launch.evidence import FCN, LINEAR, METHODS, PERMUTED, RANDOM

    def scores(jobs: Sequence[tuple[Any, ...]]) -> list[float]:
        columns = zip(*((*job, "", 0.0)[:4] for job in jobs), strict=True)
        return list(pool.map(functools.partial(score, options.output_dir), *columns))

    names, seeds = (RANDOM, *METHODS, PERMUTED), range(options.seeds)
    scores([(name, seed) for seed in (CHOICE, *seeds) for name in (*METHODS, RANDOM)])
    scores([(PERMUTED, seed) for seed in (CHOICE, *seeds)])  # from the same pre-training
    pairs = [(name, config) for config in (LINEAR, FCN) for name in names]
    tries = [(name, CHOICE, config, lr) for name, config in pairs for lr in RATES]
    tried = dict(zip(tries, scores(tries), strict=True))
    rows: list[list[Any]] = [[name, KNN, ""] for name in names]
    for name, config in pairs:
        _, best = max((tried[name, CHOICE, config, lr], lr) for lr in RATES)
        rows.append([name, config, best])
    jobs = [(name, seed, measure, lr or 0.0) for name, measure, lr in rows for seed in seeds]
    found = iter(scores(jobs))
    return [[*row, *(next(found) for _ in seeds)] for row in rows]


def texts(rows: Sequence[Sequence[Any]], reference: str) -> list[list[str]]:
    """Rows of the table: means over seeds, and differences from the ``reference`` start."""
    of = {(name, measure): values for name, measure, _, *values in rows}
    table = []
    for name, measure, lr, *values in rows:
        each = [a - b for a, b in zip(values, of[reference, measure], strict=True)]
        mean, low, high = t_interval(each)
        difference = f"{mean:+.1f} ({low:+.1f} to {high:+.1f})" if name != reference else ""
        table.append([name, measure, f"{lr}", f"{sum(values) / len(values):.1f}", difference])
    return table


@command
def main() -> None:
    """The console command."""
    options = parse(Command, "launch/proof.py")
    if options.seeds < 2:
        raise UserError(f"--seeds {options.seeds}: an interval needs 2 seeds or more.")
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.processes, spawn, max_tasks_per_child=1) as pool:
        rows = compare(options, pool)
    import pandas as pd

    from launch.evidence import RANDOM

    columns = ["start", "measure", "lr"]
    folder = options.output_dir / "results"
    frame = pd.DataFrame(rows, columns=[*columns, *map(str, range(options.seeds))])
    shown = texts(rows, RANDOM)
    columns += ["mean of seeds", f"less {RANDOM}, 95 % t interval"]
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / "proof.csv", "w") as file:
        frame.to_csv(file, index=False)
    with atomic_write(folder / "proof.md", "w") as file:
        file.write(pd.DataFrame(shown, columns=columns).to_markdown(index=False) + "\n")
    print_table("proof", columns, shown, f"every seed: {folder / 'proof.csv'}")


if __name__ == "__main__":
    main()
