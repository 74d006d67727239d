"""Pre-train LEWEL: ``python launch/pretrain.py --epochs 200 --norm eman``."""

import dataclasses
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

if __name__ == "__main__":  # not launch/, where ``import pretrain`` would find this file
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from rich.console import Console
from rich.table import Table

from common import runs
from common.errors import UserError, command
from common.files import write_json
from launch.awaited import Pretraining
from launch.cluster.follow import follow_all
from launch.cluster.jobs import Job
from launch.cluster.processes import device, processes, resolve_cluster
from launch.cluster.submit import launch
from launch.options import Resources, RunOptions, parse, resources
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
        then: Configs of det_configs/ to fine-tune by from what this run leaves: on Slurm, jobs that
            wait for its end, on one node each; elsewhere after it. --wait follows this run only.
        list_recipes: Print the recipes of all methods, and do nothing else.
    """

    config: PretrainConfig = field(default_factory=PretrainConfig)
    run: RunOptions = field(default_factory=RunOptions)
    resources: Resources = field(default_factory=resources)
    then: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="YAML [YAML ...]")] = ()
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
    runs.check_divides("--batch-size", config.batch_size, processes(options.resources))
    folder = options.run.folder("pretrain", config.run_name())
    before = dataclasses.replace(config, adapt_mlp_norms=False).run_name()
    if not folder.exists() and folder.with_name(before).exists():
        print(
            f"note: {folder.with_name(before)} is a run without LARS on the MLPs' norms, which "
            "--adapt-mlp-norms False goes on with; this is another run",
            flush=True,
        )
    source = open_images(config.data)
    check_enough(len(source), config.data, config.batch_size)
    if config.knn_every:
        queries = open_validation(config.data, config.val_data)
        if queries is not None:
            check_comparable(source, queries)
    following = _following(options, folder, dataclasses.asdict(config)) if options.then else None
    steps = config.epochs * (len(source) // config.batch_size)
    job = Job(pretrain, config, folder, options.run.output_dir.resolve(), steps)
    submitted = launch([job], options.resources, options.run.fresh, skip_live=bool(options.then))
    if following is not None:
        if submitted:
            # It may be long before the job itself says so.
            write_json(folder / "config.json", dataclasses.asdict(config))
        elif resolve_cluster(options.resources) == "slurm" and not runs.is_finished(folder):
            raise UserError(
                "--then waits for jobs of Slurm alone; start it once that run has ended."
            )
        try:
            following()
        except UserError as error:
            if not submitted:
                raise
            raise UserError(
                f"the pre-training is submitted; what is to follow is not: {error}"
            ) from error
    if options.resources.wait:
        follow_all(submitted)
    return folder


def _following(
    options: Command, folder: Path, settings: dict[str, Any]
) -> Callable[[], list[Path]]:
    """Check the transfer jobs of ``--then``, which the result submits or runs.

    Raises:
        UserError: for whatever is wrong with them.
    """
    from detection.config import CONFIGS  # pre-training alone works without Detectron2
    from launch import transfer
    from launch.members import located

    for config in options.then:
        if not located(config, CONFIGS).is_file():
            raise UserError(f"--then {config}: no such config; our own are those of det_configs/.")
    if resolve_cluster(options.resources) == "debug" and processes(options.resources) > 1:
        raise UserError("--then starts other jobs, which torchrun and srun cannot; leave it out.")
    command = transfer.Command(
        config=options.then,
        run=dataclasses.replace(options.run, name=None),
        resources=dataclasses.replace(options.resources, nodes=1, wait=False),
    )
    transfer.plan(command, (), Pretraining(folder, settings, "of the pre-training"))
    return lambda: transfer.start(dataclasses.replace(command, weights=(str(folder),)))


def _recipes() -> Table:
    table = Table(title="recipes")
    columns = ("method", "norm", "epochs", "batch", "lr", "weight decay", "momentum", "warm-up")
    for column in (*columns, "source", "MLPs' norms"):
        table.add_column(column)
    for method in methods.methods().values():
        for recipe in method.recipes:
            *values, adapted, _ = dataclasses.astuple(recipe)
            norms = {True: "adapted", False: "excluded", None: ""}[adapted]  # without LARS
            table.add_row(method.name, *(f"{v}" for v in values), norms)
    return table


@command
def main() -> None:
    """The console command."""
    run()


if __name__ == "__main__":
    main()
