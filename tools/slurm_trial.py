"""Show on a real Slurm what jobs of this project survive, and print a table of it.

    python tools/slurm_trial.py --output trial.csv

Starts a private cluster of two virtual nodes (tools/slurm-sandbox; root, and Slurm's packages),
runs small jobs on it one after the other, and preempts, limits, requeues and kills them and the
daemons below them. Whatever happened, a pre-training or a transfer must end with the metrics and
tensors of an undisturbed one to the bit. Exit status 1 if anything is not as it should be.
"""

import os
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from common.errors import UserError, command
from slurm_sandbox import packages
from slurm_trial_parts import others
from slurm_trial_parts.cluster import Cluster
from slurm_trial_parts.disturbed import Disturbed, Pretraining, Transfer
from slurm_trial_parts.faults import FAULTS
from slurm_trial_parts.runs import say
from slurm_trial_parts.table import Row, rich_table, write

TRIALS = ("pipeline", "broken", "array", "pretrain", "node", "local", "transfer")


@dataclass(frozen=True)
class Options:
    """What to try.

    Attributes:
        only: Trials: pipeline, broken, array, pretrain (2 nodes x 2 tasks), node (1 x 2), local,
            transfer. Default: all.
        faults: Faults of pretrain and transfer, by their names in the table. Default: all.
        folder: Folder for the runs, which must be new or empty. Default: a temporary one.
        keep: Keep the temporary folder. The cluster is ended anyway.
        output: A CSV file for the table.
        epochs: Epochs of 15 steps of the pre-training that is disturbed.
        iterations: Iterations of the transfer that is disturbed.
    """

    only: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME [NAME ...]")] = ()
    faults: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME [NAME ...]")] = ()
    folder: Path | None = None
    keep: bool = False
    output: Path | None = None
    epochs: int = 6
    iterations: int = 150

    def check(self) -> None:
        """Raise for names that are none, a folder that is not empty, or a machine without Slurm.

        Raises:
            UserError: naming them.
        """
        known = [fault.name for fault in FAULTS]
        for option, names, all_ in (("only", self.only, TRIALS), ("faults", self.faults, known)):
            if wrong := [name for name in names if name not in all_]:
                raise UserError(f"--{option} {wrong[0]}: is none of {', '.join(all_)}.")
        if self.folder and self.folder.exists() and any(self.folder.iterdir()):
            raise UserError(f"--folder {self.folder} is not empty; name a new one.")
        if missing := packages.missing():
            raise UserError(
                f"Slurm is not installed here (missing: {', '.join(missing)}); install it with "
                "tools/slurm-sandbox install."
            )


def trials(
    options: Options, cluster: Cluster, folder: Path
) -> dict[str, Callable[[], Iterator[Row]]]:
    """All trials, by their names."""
    on_two, on_one = (
        Pretraining(cluster, folder / f"pretrain{n}", options.faults, options.epochs, n)
        for n in (2, 1)
    )
    transfer: Disturbed = Transfer(cluster, folder / "transfer", options.faults, options.iterations)
    return {
        "pretrain": on_two.rows,
        "node": on_one.rows,
        "local": lambda: others.local(cluster, on_one),
        "transfer": transfer.rows,
        "pipeline": lambda: others.pipeline(cluster, folder / "pipeline"),
        "broken": lambda: others.broken(cluster, folder / "broken"),
        "array": lambda: others.array(cluster, folder / "array"),
    }


def run(options: Options, folder: Path) -> list[Row]:
    """Try everything on a cluster of its own, which is gone afterwards."""
    rows: list[Row] = []
    with started() as cluster:
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
        yield Row(name, "", f"{type(error).__name__}: {error}", False)


@contextmanager
def started() -> Iterator[Cluster]:
    """A cluster which the environment of this process names."""
    with tempfile.TemporaryDirectory(
        prefix="slurm-trial-", dir="/tmp", ignore_cleanup_errors=True
    ) as scratch:
        cluster = Cluster(Path(scratch) / "c")
        os.environ.update(cluster.environment())
        # No settings of this user's own.
        os.environ["XDG_CONFIG_HOME"] = os.environ["LEWEL_CACHE"] = str(Path(scratch) / "own")
        try:
            cluster.tool("start", "--nodes", "2", "--gpus-per-node", "0")
            say(f"a cluster of 2 nodes runs in {cluster.folder}")
            yield cluster
        finally:
            cluster.tool("stop", "--purge")
            say("the cluster is ended")


@command
def main() -> int:
    """Try, and show."""
    options = tyro.cli(Options, description=__doc__, config=(tyro.conf.FlagCreatePairsOff,))
    options.check()
    folder = (options.folder or Path(tempfile.mkdtemp(prefix="slurm-trial-runs-"))).resolve()
    say(f"runs are in {folder}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # not without ending the cluster
    try:
        rows = run(options, folder)
    finally:
        if not (options.folder or options.keep):
            shutil.rmtree(folder)
    Console(width=None if sys.stdout.isatty() else 180).print(rich_table(rows))
    return 0 if rows and all(row.ok for row in rows) else 1


if __name__ == "__main__":
    main()
