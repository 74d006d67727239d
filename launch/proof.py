"""Evidence that pre-training helps, over seeds: ``make proof``.

Every start has the same steps, and the best of the same learning rates, chosen on a seed that is
not reported. What is there already is not run again, so that a proof that was ended goes on.
"""

import functools
import json
import multiprocessing
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":  # not launch/, where ``import pretrain`` would find another file
    sys.path[0] = str(ROOT)

from common.errors import UserError, command
from common.files import atomic_write
from launch.console import print_table
from launch.options import parse

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from launch.evidence import Bench

CHOICE = 100  # the seed on which rates are chosen
RATES = (0.05, 0.1, 0.2)
KNN, MIOU = "kNN accuracy", "mIoU"


@dataclass(frozen=True)
class Command:
    """Compare what starts from LEWEL_M, MoCo v2, BYOL and from nothing, on drawn images.

    Attributes:
        output_dir: Folder for starts/, runs/ and results/.
        seeds: Seeds that are reported. At least 2.
        processes: Jobs at once, each of one thread.
    """

    output_dir: Path = ROOT / "proof"
    seeds: int = 5
    processes: int = 2


@dataclass(frozen=True)
class Scores:
    """Scores of a start, in percent."""

    name: str
    lr: float  # the best of RATES
    right: "list[NDArray[np.float64]]"  # of each seed: 100 for images that kNN has right, else 0
    miou: list[float]  # of each seed


def knn(output_dir: Path, name: str, seed: int) -> "NDArray[np.float64]":
    """Make a start; 100 for the validation images that it has right by kNN, else 0."""
    return _bench(output_dir).knn(name, seed)


def miou(output_dir: Path, name: str, seed: int, lr: float) -> float:
    """The mIoU of a start after fine-tuning at a learning rate, in percent."""
    from launch.evidence import FCN

    folder = _bench(output_dir).transfer(name, seed, FCN, "--lr", str(lr))
    return float(json.loads((folder / "metrics.json").read_text())["mIoU"])


def _bench(output_dir: Path) -> "Bench":
    import torch

    from launch.evidence import Bench

    torch.set_num_threads(1)
    return Bench(output_dir, ("--cluster", "debug", "--gpus-per-node", "0"))


def compare(options: Command, pool: ProcessPoolExecutor) -> list[Scores]:
    """Run everything, the random start first."""
    from launch.evidence import METHODS, PERMUTED, RANDOM

    def run(job: Callable[..., Any], tasks: Sequence[tuple[Any, ...]]) -> dict[Any, Any]:
        found = pool.map(functools.partial(job, options.output_dir), *zip(*tasks, strict=True))
        return dict(zip(tasks, found, strict=True))

    names, seeds = (RANDOM, *METHODS, PERMUTED), range(options.seeds)
    starts = [(name, seed) for seed in (CHOICE, *seeds) for name in reversed(names)]
    right = run(knn, [start for start in starts if start[0] != PERMUTED])
    right |= run(knn, [start for start in starts if start[0] == PERMUTED])  # of the same runs
    tried = run(miou, [(name, CHOICE, lr) for name in names for lr in RATES])
    best = {name: max(RATES, key=lambda lr: tried[name, CHOICE, lr]) for name in names}
    tuned = run(miou, [(name, seed, best[name]) for name in names for seed in seeds])
    return [
        Scores(
            name,
            best[name],
            [right[name, seed] for seed in seeds],
            [tuned[name, seed, best[name]] for seed in seeds],
        )
        for name in names
    ]


def tables(found: Sequence[Scores]) -> "tuple[pd.DataFrame, pd.DataFrame]":
    """The scores of each seed; and their means, with the differences from the first start.

    Differences are paired: in mIoU by seed, in kNN accuracy by image, of which each has the mean of
    the seeds.
    """
    import numpy as np
    import pandas as pd

    from launch.evidence import paired

    scores, means = [], []
    for one in found:
        images, reference = (np.mean(each.right, axis=0) for each in (one, found[0]))
        for what, values, differences in (
            ((KNN, ""), np.mean(one.right, axis=1), images - reference),
            ((MIOU, str(one.lr)), one.miou, np.subtract(one.miou, found[0].miou)),
        ):
            scores.append([one.name, *what, *values])
            shown = "" if one is found[0] else str(paired(differences))
            means.append([one.name, *what, f"{np.mean(values):.1f}", shown])
    columns = ["start", "measure", "lr"]
    more = ["mean of seeds", f"less {found[0].name}, 95 % interval"]
    seeds = [str(seed) for seed in range(len(found[0].miou))]
    return (
        pd.DataFrame(scores, columns=columns + seeds),
        pd.DataFrame(means, columns=columns + more),
    )


@command
def main() -> None:
    """The console command."""
    options = parse(Command, "launch/proof.py")
    if options.seeds < 2:
        raise UserError(f"--seeds {options.seeds}: an interval needs 2 seeds or more.")
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.processes, spawn) as pool:
        scores, table = tables(compare(options, pool))
    folder = options.output_dir / "results"
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / "proof.csv", "w") as file:
        scores.to_csv(file, index=False)
    with atomic_write(folder / "proof.md", "w") as file:
        file.write(table.to_markdown(index=False) + "\n")
    print_table(
        "proof", list(table), table.to_numpy().tolist(), f"every seed: {folder / 'proof.csv'}"
    )


if __name__ == "__main__":
    main()
