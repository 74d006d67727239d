"""Fine-tune and evaluate a detector on pre-trained weights.

``python launch/transfer.py --config det_configs/coco_R_50_FPN_1x_infomin.yaml --lr 2e-4``
"""

import itertools
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

if __name__ == "__main__":  # not launch/, where ``import pretrain`` would find another file
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from common.errors import UserError, command
from common.runs import check_seed
from detection import own_data
from detection.config import CONFIGS, TransferConfig
from launch.awaited import Pretraining, check_waits
from launch.cluster.follow import Submitted, follow_all
from launch.cluster.jobs import Job
from launch.cluster.processes import device, processes
from launch.cluster.submit import check_paths, launch
from launch.detectors import find_detector
from launch.members import Member, check, check_apart, located, warn_of_other_methods
from launch.options import Resources, RunOptions, parse, resources
from launch.weights import Source, await_weights, find_weights

OVERRIDE_KEY = re.compile(
    r"[A-Z][A-Z0-9_]*(\.[A-Z0-9_]+)+|SEED|OUTPUT_DIR|VERSION|VIS_PERIOD|"
    r"CUDNN_BENCHMARK"
)
# Options whose values may look like a key.
NAMES = (
    *("--config", "--weights", "--label", "--name", "--output-dir", "--partition", "--account"),
    *("--qos", "--constraint", "--exclude", "--comment"),
)


@dataclass(frozen=True)
class Command:
    """Fine-tune from self-supervised weights and write rows of the results tables.

    Several configs, weights, learning rates or seeds make a run of each combination; on Slurm, all
    of them are one job array. Trailing KEY VALUE pairs override the Detectron2 config, as in
    Detectron2's own tools.

    Attributes:
        config: Files of det_configs/, or their names, or any Detectron2 YAML.
        weights: Checkpoints, Detectron2 weights (.pkl), or "none" for a random start; or the
            folder of a pre-training run, for whose end the jobs wait on Slurm. Default: the
            config's own MODEL.WEIGHTS; where that is a placeholder, the newest finished
            pre-training run.
        lr: SOLVER.BASE_LR for the config's own batch, literally. Default: the config's.
        batch_size: Images per iteration over all processes. Another than the config's scales
            learning rate, iterations and steps by Detectron2's linear rule.
        seed: Seed of heads, order and augmentation.
        seeds: How many seeds, counted from --seed.
        label: Name of the pre-training method in the results table, where the checkpoint does
            not tell.
        dataset: Your own data in COCO's format, to train on and to test on, in the place of the
            config's: each NAME=ANNOTATIONS.json:IMAGES, or a name that
            ~/.config/lewel-transfer/datasets.toml defines. With --eval-only one, to test on.
        eval_only: Only evaluate --weights, a trained detector such as a run's model_final.pth.
    """

    config: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="YAML [YAML ...]")]
    weights: Annotated[tuple[str, ...], tyro.conf.arg(metavar="FILE [FILE ...]")] = ()
    lr: Annotated[tuple[float, ...], tyro.conf.arg(metavar="LR [LR ...]")] = ()
    batch_size: int | None = None
    seed: int = 0
    seeds: int = 1
    label: str | None = None
    dataset: Annotated[tuple[str, ...], tyro.conf.arg(metavar="DATA [DATA]")] = ()
    eval_only: bool = False
    run: RunOptions = field(default_factory=RunOptions)
    resources: Resources = field(default_factory=resources)


def split_overrides(words: list[str]) -> tuple[list[str], tuple[str, ...]]:
    """Options, and the KEY VALUE pairs that follow them, from the first Detectron2 key on."""
    for position, word in enumerate(words):
        is_value = position > 0 and words[position - 1] in NAMES
        if OVERRIDE_KEY.fullmatch(word) and not is_value:
            return words[:position], tuple(words[position:])
    return words, ()


def run(arguments: list[str] | None = None) -> list[Path]:
    """Check the command line, submit or run the jobs, and return their run folders."""
    words, overrides = split_overrides(sys.argv[1:] if arguments is None else arguments)
    return start(parse(Command, "launch/transfer.py", words), overrides)


def start(options: Command, overrides: tuple[str, ...] = ()) -> list[Path]:
    """Check everything, submit or run the jobs, and return their run folders.

    Raises:
        UserError: for whatever is wrong; then nothing was written.
    """
    members = plan(options, overrides)
    # Now: a config may be edited while its job runs.
    folders = list(dict.fromkeys(member.job(options.run).folder for member in members))
    submitted = submit(members, options.run, options.resources)
    if options.resources.wait:
        follow_all(submitted)
    return folders


def submit(
    members: Sequence[Member],
    run: RunOptions,
    resources: Resources,
    skip_live: bool | None = None,
) -> list[Submitted]:
    """Convert the weights of runs that were checked, submit or run the jobs; those of Slurm.

    Args:
        members: the runs.
        run: their folders.
        resources: of each.
        skip_live: as for :func:`launch.cluster.submit.launch`.

    Raises:
        UserError: if a folder holds another run, or a job could not be submitted, or failed.
    """
    waiting: dict[str, dict[Path, Job]] = {}  # by the job that they wait for
    for member in members:
        job, awaited = member.job(run), member.source.awaited
        # --lr 0.02 2e-2 is one run.
        waiting.setdefault(awaited.job_id if awaited else "", {})[job.folder] = job
    for after, jobs in waiting.items():
        check_waits(after, resources)
        check_paths(jobs.values(), resources)
    for source in {member.source.weights: member.source for member in members}.values():
        source.write()
        print(source.description, flush=True)
    if not run.fresh:
        warn_of_other_methods(members, run)
    submitted = []
    for after, jobs in waiting.items():
        skips = bool(after) or skip_live
        submitted += launch(list(jobs.values()), resources, run.fresh, after, skips)
    return submitted


def plan(
    options: Command, overrides: tuple[str, ...], awaited: Pretraining | None = None
) -> list[Member]:
    """The runs that a command line means, checked: everything that can be wrong before a job.

    Args:
        options: the command.
        overrides: KEY VALUE pairs.
        awaited: a pre-training run that is still to be submitted, in the place of weights.

    Raises:
        UserError: naming what is wrong.
    """
    if options.seeds < 1:
        raise UserError(f"--seeds {options.seeds}: must be at least 1.")
    check_seed(options.seed)
    check_seed(options.seed + options.seeds - 1)
    if options.eval_only:
        _check_trains_nothing(options)
    if options.label and len(options.weights) > 1:
        raise UserError(
            f"--label {options.label} is one name for {len(options.weights)} --weights; start a "
            "command for each."
        )
    datasets = own_data.find(options.dataset, options.eval_only)
    if datasets:
        classes = [name for _, name in datasets[-1].categories]
        print(f"data: {', '.join(map(str, datasets))}; {len(classes)} classes", flush=True)
    members = []
    found: dict[str, Source] = {}  # a checkpoint is read once for all configs
    for path, wanted in itertools.product(options.config, options.weights or (None,)):
        yaml = str(located(path, CONFIGS))
        if awaited is not None:
            source = await_weights(awaited, options.label)
        elif wanted in found:
            source = found[wanted]
        elif options.eval_only:
            source = find_detector(wanted, options.label)
        else:
            source = find_weights(wanted, yaml, options.label, options.run.output_dir.resolve())
        if wanted is not None:
            found[wanted] = source
        for lr, seed in itertools.product(options.lr or (None,), range(options.seeds)):
            config = TransferConfig(
                yaml,
                source.weights,
                lr,
                options.seed + seed,
                overrides,
                device(options.resources),
                options.batch_size,
                options.eval_only,
                datasets,
            )
            members.append(Member(config, source, options.label))
    if options.run.name and len(members) > 1:
        raise UserError(
            f"--name {options.run.name} is one folder, but these are {len(members)} runs; leave "
            "it out."
        )
    count = processes(options.resources)
    repairs = [sentence for member in members for sentence in check(member, count)]
    for sentence in dict.fromkeys(repairs):
        print(f"warning: {sentence}", flush=True)
    check_apart(members, options.run)
    return members


def _check_trains_nothing(options: Command) -> None:
    """Raise for what ``--eval-only`` has no use for."""
    for option, given in (
        ("--lr", bool(options.lr)),
        ("--batch-size", options.batch_size is not None),
        ("--seeds", options.seeds > 1),
    ):
        if given:
            raise UserError(
                f"{option} is for training, and --eval-only trains nothing; leave it out."
            )


@command
def main() -> None:
    """The console command."""
    run()


if __name__ == "__main__":
    main()
