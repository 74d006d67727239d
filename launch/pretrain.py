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
from launch import costs, transfer
from launch.console import print_table
from launch.options import Resources, RunOptions, located, parse, resources
from pretrain.config import PretrainConfig, ResolvedConfig

if TYPE_CHECKING:
    from launch.slurm.job import Job


@dataclass(frozen=True)
class Command:
    """Pre-train on ImageNet with a published recipe, picked by --method, --norm and --epochs.

    Typed again, the same command resumes the run, or says that it is finished.

    Attributes:
        then: Configs of det_configs/ to fine-tune by from what this run leaves. On Slurm, jobs that
            wait for its end, on one node each; elsewhere after it. --wait follows this run only.
        plan: Print what the run would cost, counted without a GPU, and do nothing else. Parameters,
            GFLOP, memory of a GPU, hours, loader cores, bytes all-reduced and on disk.
        list_recipes: Print the recipes of all methods, and do nothing else.
    """

    config: PretrainConfig = field(default_factory=PretrainConfig)
    run: RunOptions = field(default_factory=RunOptions)
    resources: Resources = field(default_factory=resources)
    then: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="YAML ...")] = ()
    plan: bool = False
    list_recipes: bool = False


def run(arguments: list[str] | None = None) -> Path | None:
    """Check the command line, submit or run the jobs, and return the run folder."""
    options = parse(Command, "launch/pretrain.py", arguments)
    if options.list_recipes:
        _print_recipes()
        return None
    if options.plan:
        costs.show(options.config, options.resources)
        return None
    config = options.config.resolve()
    from launch.slurm.following import follow_all
    from launch.slurm.resources import resolve_cluster
    from launch.slurm.submission import launch

    job = plan(options, config)
    then = transfer.Command(
        config=options.then,
        run=dataclasses.replace(options.run, name=None),  # they have names of their own
        resources=dataclasses.replace(options.resources, nodes=1, wait=False),
    )
    following = _plan_following(then, job) if options.then else []
    if options.run.fresh or not runs.is_finished(job.folder):
        _check_memory(job.config, options.resources)
    submitted = launch([job], options.resources, options.run.fresh, skip_live=bool(following))
    on_slurm = resolve_cluster(options.resources) == "slurm"
    if submitted and on_slurm:  # It may be long before the job itself says so.
        write_json(job.folder / "config.json", dataclasses.asdict(job.config))
    if following:
        if not submitted and on_slurm and not runs.is_finished(job.folder):
            raise UserError(
                "--then waits for jobs of Slurm alone; start it once that run has ended."
            )
        try:
            transfer.submit(following, then.resources, then.run.fresh)
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
    """The job that a command line means, checked: everything that can be wrong before a job."""
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


def _check_memory(config: ResolvedConfig, resources: Resources) -> None:
    """Refuse what is too much for GPUs of ``--gpu-memory-gb``; without it, count nothing."""
    from launch.slurm.resources import gpus_per_node, processes

    limit = resources.gpu_memory_gb
    if limit and config.device != "cpu" and gpus_per_node(resources) and runs.is_main_process():
        from pretrain.plan import count

        costs.check(count(config, processes(resources)), limit)


def _plan_following(command: transfer.Command, job: "Job") -> list["Job"]:
    """The transfer jobs of ``--then``, checked."""
    for config in command.config:
        if not located(config).is_file():
            raise UserError(f"--then {config}: no such config; our own are those of det_configs/.")
    from launch.slurm.resources import processes, resolve_cluster
    from launch.weights import find_backbone, to_come

    if resolve_cluster(command.resources) == "debug" and processes(command.resources) > 1:
        raise UserError("--then starts other jobs, which torchrun and srun cannot; leave it out.")
    if runs.is_finished(job.folder) and not command.run.fresh:
        source = find_backbone(str(job.folder), None)
    else:
        source = to_come(job.folder, dataclasses.asdict(job.config), None)
    return transfer.plan(command, awaited=source)


def _print_recipes() -> None:
    from pretrain import methods

    columns = (
        *("method", "norm", "epochs", "batch", "lr", "weight decay", "momentum", "warm-up"),
        *("source", "MLPs' norms"),
    )
    rows = []
    for method in methods.methods().values():
        for recipe in method.recipes:
            *values, adapted, _ = dataclasses.astuple(recipe)
            norms = "adapted" if adapted else "excluded"
            if "adapt_mlp_norms" not in method.defaults:  # without LARS
                norms = ""
            rows.append([method.name, *map(str, values), norms])
    print_table("recipes", columns, rows)


@command
def main() -> None:
    """The console command."""
    run()


if __name__ == "__main__":
    main()
