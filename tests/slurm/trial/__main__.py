"""Show on a real Slurm what jobs of this project survive, and print a table of it.

    make slurm-trial OUTPUT=trial.csv EPOCHS=5 ITERATIONS=90
    python -m tests.slurm.trial --output trial.csv --epochs 5 --iterations 90

Starts a private cluster of two virtual nodes (tests/slurm/sandbox; root, and Slurm's packages),
runs small jobs on it one after the other, and preempts, limits, requeues and kills them and the
daemons below them. Whatever happened, a pre-training or a transfer must end with the metrics and
tensors of an undisturbed one to the bit. Exit status 1 if anything is not as it should be.
"""

import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from common.errors import UserError, command
from tests.slurm.sandbox.cluster import Sandbox, started
from tests.slurm.trial import others
from tests.slurm.trial.disturbed import Pretraining, Transfer
from tests.slurm.trial.faults import FAULTS
from tests.slurm.trial.runs import say
from tests.slurm.trial.table import Row, show, write

Trial = Literal["pretrain", "node", "local", "transfer", "pipeline", "broken", "array"]


@dataclass(frozen=True)
class Options:
    """Trials, and their sizes.

    Attributes:
        only: Trials; pretrain is on 2 nodes x 2 tasks, node on 1 x 2. Default: all.
        faults: Faults of pretrain, node and transfer, by their names in the table. Default: all.
        folder: Folder for the runs, which must be new or empty and is kept. Default: a temporary
            one, which is not.
        output: A CSV file for the table.
        epochs: Epochs of 15 steps of the pre-training that is disturbed.
        iterations: Iterations of the transfer that is disturbed.
    """

    only: tuple[Trial, ...] = ()
    faults: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME [NAME ...]")] = ()
    folder: Path | None = None
    output: Path | None = None
    epochs: int = 6
    iterations: int = 150


def trials(
    options: Options, cluster: Sandbox, folder: Path
) -> dict[str, Callable[[], Iterator[Row]]]:
    """All trials, by their names."""
    on_two, on_one = (
        Pretraining(cluster, folder / f"pretrain{n}", options.faults, options.epochs, n)
        for n in (2, 1)
    )
    return {
        "pretrain": on_two.rows,
        "node": on_one.rows,
        "local": lambda: others.local(cluster, on_one),
        "transfer": Transfer(cluster, folder / "transfer", options.faults, options.iterations).rows,
        "pipeline": lambda: others.pipeline(cluster, folder / "pipeline"),
        "broken": lambda: others.broken(cluster, folder / "broken"),
        "array": lambda: others.array(cluster, folder / "array"),
    }


def run(options: Options, folder: Path) -> list[Row]:
    """Try everything on a cluster of its own, which is gone afterwards."""
    rows: list[Row] = []
    with started(gpus_per_node=0) as cluster:
        say(f"a cluster of 2 nodes runs in {cluster.folder}, the runs are in {folder}")
        for name, trial in trials(options, cluster, folder).items():
            if options.only and name not in options.only:
                continue
            for row in _tried(name, trial):
                rows.append(row)
                if options.output:
                    write(options.output, rows)
            cluster.cancel_all()
    return rows


def _tried(name: str, trial: Callable[[], Iterator[Row]]) -> Iterator[Row]:
    """A trial's rows; an error is one of them, since the other trials are still worth trying."""
    try:
        yield from trial()
    except Exception as error:
        traceback.print_exc()
        outcome = f"{type(error).__name__}: {error}"
        yield Row(name, "", None, None, None, None, outcome, False)


@command
def main() -> int:
    """Try, and show."""
    options = tyro.cli(Options, description=__doc__)
    known = [fault.name for fault in FAULTS]
    if wrong := set(options.faults).difference(known):
        raise UserError(f"--faults {wrong.pop()}: is none of {', '.join(known)}.")
    if options.folder and options.folder.exists() and any(options.folder.iterdir()):
        raise UserError(f"--folder {options.folder} is not empty; name a new one.")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # not without ending the cluster
    with tempfile.TemporaryDirectory(prefix="slurm-trial-") as scratch:
        # No settings of this user's own.
        os.environ["XDG_CONFIG_HOME"] = os.environ["LEWEL_CACHE"] = f"{scratch}/own"
        rows = run(options, (options.folder or Path(scratch) / "runs").resolve())
    show(rows)
    return 0 if rows and all(row.ok for row in rows) else 1


if __name__ == "__main__":
    main()
