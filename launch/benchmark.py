"""The whole table of one checkpoint: ``python launch/benchmark.py --weights CHECKPOINT``."""

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":  # not launch/, where ``import pretrain`` would find another file
    sys.path[0] = str(ROOT)

from common import runs
from common.errors import UserError, command
from launch import classify, transfer
from launch.console import print_table
from launch.options import CONFIGS, Resources, RunOptions, parse, resources
from pretrain.evaluation.config import LinearConfig

if TYPE_CHECKING:
    from launch.slurm.job import Job

# LEWEL's README, tables of ImageNet and COCO.
LEWEL = ("coco_R_50_C4_1x_infomin", "coco_R_50_FPN_1x_infomin", "coco_R_50_FPN_2x_infomin")
SEEDS = 5  # of Pascal VOC detection, whose results vary: MoCo (arXiv 1911.05722), section 4.2

# Seconds per iteration of 16 images on 8 V100 GPUs: Detectron2's model zoo, for the same detectors
# with frozen BatchNorm, so these are lower bounds. Nothing of the kind is known of FCN.
SECONDS = {"coco_R_50_C4": 0.584, "coco_R_50_FPN": 0.261, "pascal_voc_R_50_C4": 0.537}
GPUS = 8


@dataclass(frozen=True)
class Command:
    """Fine-tune a checkpoint by every protocol of a suite, and evaluate it linearly.

    The checkpoint is converted first, once for all jobs. Typed again, the same command goes on
    with what is not finished.

    Attributes:
        weights: A checkpoint, or the run folder of a pre-training. Jobs of the latter wait for its
            end on Slurm.
        suite: The rows of LEWEL's README, or every config. But not the demo's; full has random and
            supervised starts too.
        dry_run: Print the runs and a lower bound of detection's GPU hours, and stop.
        label: Name of the method in tables. Default: what the checkpoint tells.
        batch_size: Images per iteration of the transfer jobs. Another than a config's scales it.
            Default: each config's.
        data: ImageNet for linear evaluation; none: without it. Default: IMAGENET_DIR.
    """

    weights: Annotated[str, tyro.conf.arg(metavar="FILE")]
    suite: Literal["lewel", "full"] = "lewel"
    dry_run: bool = False
    label: str | None = None
    batch_size: int | None = None
    data: Annotated[str | None, tyro.conf.arg(metavar="PATH")] = None
    run: RunOptions = field(default_factory=RunOptions)
    resources: Resources = field(default_factory=resources)


def configs_of(suite: str) -> list[Path]:
    """The configs of a suite, in the order of their names."""
    if suite == "lewel":
        return [CONFIGS / f"{name}.yaml" for name in LEWEL]
    names = sorted(CONFIGS.glob("*.yaml"))
    return [path for path in names if not path.name.startswith(("Base-", "demo_"))]


def sweeps(options: Command) -> list[transfer.Command]:
    """The transfer commands of a suite: what starts from the checkpoint, and what does not."""
    from detection.config import PLACEHOLDER, read

    groups: dict[tuple[bool, int], list[Path]] = {}
    for path in configs_of(options.suite):
        own_start = read(path).cfg.MODEL.WEIGHTS != PLACEHOLDER
        seeds = SEEDS if path.stem.startswith("pascal_voc_R_50_C4") else 1
        groups.setdefault((own_start, seeds), []).append(path)
    return [
        transfer.Command(
            config=tuple(paths),
            weights=() if own_start else (options.weights,),
            batch_size=options.batch_size,
            seeds=seeds,
            label=None if own_start else options.label,
            run=options.run,
            resources=options.resources,
        )
        for (own_start, seeds), paths in groups.items()
    ]


def gpu_hours(config: str, images: int) -> float | None:
    """A lower bound of a run's V100 hours, from its images (iterations times batch).

    None for a config (the YAML's name) of which nothing was published.
    """
    found = [seconds for name, seconds in SECONDS.items() if config.startswith(name)]
    return found[0] * GPUS * images / 16 / 3600 if found else None


def plan(options: Command) -> tuple[list["Job"], list[str]]:
    """The transfer jobs of a suite, checked, and for a dry run what keeps others from starting."""
    jobs: list[Job] = []
    wrong = []
    for one in sweeps(options):
        paths = [(path,) for path in one.config] if options.dry_run else [one.config]
        for path in paths:
            try:
                jobs += transfer.plan(dataclasses.replace(one, config=path))
            except UserError as error:
                if not options.dry_run:
                    raise
                wrong.append(f"{path[0].stem} cannot start: {error}")
    return jobs, wrong


def print_plan(jobs: Sequence["Job"], suite: str) -> None:
    """Print the transfer jobs of a suite, with what they would cost."""
    columns = ("config", "weights", "seed", "lr", "batch", "iterations", "GPU hours", "state")
    rows, total = [], 0.0
    for job in jobs:
        config = job.config
        hours = gpu_hours(config.config_name, job.steps * config.batch_size)
        total += hours or 0
        row = (
            config.config_name,
            config.weights.method,
            config.seed,
            f"{config.lr:g}",
            config.batch_size,
            job.steps,
            f"{hours:.0f}" if hours else "?",
            "finished" if runs.is_finished(job.folder) else "to do",
        )
        rows.append([str(value) for value in row])
    caption = (
        f"{len(jobs)} runs, at least {total:.0f} V100 hours by Detectron2's model zoo, which "
        "froze BatchNorm and knows neither FCN nor linear evaluation"
    )
    print_table(f"suite {suite}", columns, rows, caption)


def run(arguments: list[str] | None = None) -> None:
    """Print the plan; then, unless that was all, submit or run it."""
    options = parse(Command, "launch/benchmark.py", arguments)
    if options.run.name:
        raise UserError("--name is one folder, and a suite has many runs; leave it out.")
    from launch.slurm.following import follow_all
    from launch.slurm.submission import launch

    jobs, wrong = plan(options)
    if not jobs:
        raise UserError(wrong[0].partition(" cannot start: ")[2])
    print_plan(jobs, options.suite)
    print("\n".join(wrong), flush=True)
    evaluation = plan_evaluation(options)
    if options.dry_run:
        return
    fresh = options.run.fresh
    submitted = transfer.submit(jobs, options.resources, fresh, skip_live=True)
    if evaluation:
        submitted += launch([evaluation], options.resources, fresh, skip_live=True)
    if options.resources.wait:
        follow_all(submitted)


def plan_evaluation(options: Command) -> "Job | None":
    """Linear evaluation, checked; None if it is left out, or for a dry run if it cannot start."""
    if options.data == "none":
        return None
    weights = classify.WeightOptions(options.weights, label=options.label)
    protocol = LinearConfig(data=options.data)
    try:
        job = classify.plan(classify.Linear(weights, protocol, options.run, options.resources))
    except UserError as error:
        if not options.dry_run:
            raise
        print(f"linear evaluation cannot start: {error}", flush=True)
        return None
    print(f"linear evaluation, {job.steps} steps: {job.folder}", flush=True)
    return job


@command
def main() -> None:
    """The console command."""
    run()


if __name__ == "__main__":
    main()
