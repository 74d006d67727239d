"""Pre-train LEWEL: ``python launch/pretrain.py --epochs 200 --norm eman``."""

import dataclasses
import sys
from dataclasses import dataclass, field
from pathlib import Path

if __name__ == "__main__":  # not launch/, where ``import pretrain`` would find this file
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from rich.console import Console
from rich.table import Table

from common.distributed import check_divides
from common.errors import command
from launch.cluster import device, processes
from launch.jobs import Job
from launch.options import Resources, RunOptions, parse
from launch.submit import launch
from pretrain import methods
from pretrain.config import PretrainConfig
from pretrain.data import check_enough, open_images, open_validation
from pretrain.evaluation.splits import check_comparable
from pretrain.train import pretrain


@dataclass(frozen=True)
class Command:
    """Pre-train on ImageNet with a published recipe, picked by --method, --norm and --epochs.

    Typed again, the same command resumes the run, or says that it is finished.

    Attributes:
        list_recipes: Print the recipes of all methods, and do nothing else.
    """

    config: PretrainConfig = field(default_factory=PretrainConfig)
    run: RunOptions = field(default_factory=RunOptions)
    resources: Resources = field(default_factory=Resources)
    list_recipes: bool = False


def run(arguments: list[str] | None = None) -> Path | None:
    """Check the command line, submit or run the job, and return its run folder."""
    options = parse(Command, "launch/pretrain.py", arguments)
    if options.list_recipes:
        Console(width=None if sys.stdout.isatty() else 160).print(_recipes())
        return None
    config = options.config.resolve()
    if config.device == "auto":
        config = dataclasses.replace(config, device=device(options.resources))
    check_divides("--batch-size", config.batch_size, processes(options.resources))
    folder = options.run.folder("pretrain", config.run_name())
    source = open_images(config.data)
    check_enough(len(source), config.data, config.batch_size)
    if config.knn_every:
        queries = open_validation(config.data, config.val_data)
        if queries is not None:
            check_comparable(source, queries)
    steps = config.epochs * (len(source) // config.batch_size)
    job = Job(pretrain, config, folder, options.run.output_dir.resolve(), steps)
    launch([job], options.resources, options.run.fresh)
    return folder


def _recipes() -> Table:
    table = Table(title="recipes")
    columns = ("method", "norm", "epochs", "batch", "lr", "weight decay", "momentum", "warm-up")
    for column in (*columns, "source"):
        table.add_column(column)
    for method in methods.methods().values():
        for recipe in method.recipes:
            table.add_row(method.name, *(f"{v}" for v in dataclasses.astuple(recipe)))
    return table


@command
def main() -> None:
    """The console command."""
    run()


if __name__ == "__main__":
    main()
