"""Pre-train LEWEL: ``python launch/pretrain.py --epochs 200 --norm eman``."""

import dataclasses
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

if __name__ == "__main__":  # not launch/, where ``import pretrain`` would find this file
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from common import runs
from common.errors import UserError, command
from common.files import write_json
from launch.options import Resources, RunOptions, located, parse, resources
from pretrain.config import PretrainConfig, ResolvedConfig

if TYPE_CHECKING:
    from rich.table import Table

    from launch.slurm.job import Job


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
    """Check the command line, submit or run the jobs, and return the run folder."""
    options = parse(Command, "launch/pretrain.py", arguments)
    if options.list_recipes:
        from rich.console import Console

        Console(width=None if sys.stdout.isatty() else 160).print(_recipes())
        return None
    config = options.config.resolve()
    from launch.slurm.following import follow_all
    from launch.slurm.resources import resolve_cluster
    from launch.slurm.submission import launch

    job = plan(options, config)
    following = _plan_following(options, job) if options.then else []
    submitted = launch([job], options.resources, options.run.fresh, skip_live=bool(following))
    if following:
        from launch import transfer

        if submitted:
            # It may be long before the job itself says so.
            write_json(job.folder / "config.json", dataclasses.asdict(job.config))
        elif resolve_cluster(options.resources) == "slurm" and not runs.is_finished(job.folder):
            raise UserError(
                "--then waits for jobs of Slurm alone; start it once that run has ended."
            )
        try:
            transfer.submit(following, _run_options(options), _resources(options))
        except UserError as error:
            if not submitted:
                raise
            raise UserError(
                f"the pre-training is submitted; what is to follow is not: {error}"
            ) from error
    if options.resources.wait:
        follow_all(submitted)
    return job.folder


def plan(options: Command, config: ResolvedConfig) -> "Job":
    """The job of a command line, checked.

    Raises:
        UserError: naming the thing that is wrong.
    """
    from launch.slurm.job import Job
    from launch.slurm.resources import device, processes
    from pretrain.data.locate import check_enough, open_images, open_validation
    from pretrain.evaluation.splits import check_comparable
    from pretrain.train import pretrain

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
    steps = config.epochs * (len(source) // config.batch_size)
    return Job("pretrain", pretrain, config, folder, options.run.output_dir.resolve(), steps)


def _plan_following(options: Command, job: "Job") -> list["Job"]:
    """The transfer jobs of ``--then``, checked.

    Raises:
        UserError: naming the thing that is wrong with them.
    """
    for config in options.then:
        if not located(config).is_file():
            raise UserError(f"--then {config}: no such config; our own are those of det_configs/.")
    from launch import transfer
    from launch.slurm.resources import processes, resolve_cluster
    from launch.weights import find_backbone, to_come

    if resolve_cluster(options.resources) == "debug" and processes(options.resources) > 1:
        raise UserError("--then starts other jobs, which torchrun and srun cannot; leave it out.")
    there = runs.is_finished(job.folder) and not options.run.fresh
    settings = dataclasses.asdict(job.config)
    source = find_backbone(str(job.folder), None) if there else to_come(job.folder, settings, None)
    run, resources = _run_options(options), _resources(options)
    command = transfer.Command(config=options.then, run=run, resources=resources)
    return transfer.plan(command, awaited=source)


def _run_options(options: Command) -> RunOptions:
    """Those of the jobs that follow, which have names of their own."""
    return dataclasses.replace(options.run, name=None)


def _resources(options: Command) -> Resources:
    return dataclasses.replace(options.resources, nodes=1, wait=False)


def _recipes() -> "Table":
    from rich.table import Table

    from pretrain import methods

    table = Table(title="recipes")
    columns = ("method", "norm", "epochs", "batch", "lr", "weight decay", "momentum", "warm-up")
    for column in (*columns, "source", "MLPs' norms"):
        table.add_column(column)
    for method in methods.methods().values():
        for recipe in method.recipes:
            *values, adapted, _ = dataclasses.astuple(recipe)
            norms = "adapted" if adapted else "excluded"
            if "adapt_mlp_norms" not in method.defaults:  # without LARS
                norms = ""
            table.add_row(method.name, *(f"{v}" for v in values), norms)
    return table


@command
def main() -> None:
    """The console command."""
    run()


if __name__ == "__main__":
    main()
