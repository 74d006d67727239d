"""Fine-tune and evaluate a detector on pre-trained weights.

``python launch/transfer.py --config det_configs/coco_R_50_FPN_1x_infomin.yaml --lr 2e-4``
"""

import itertools
import json
import math
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

if __name__ == "__main__":  # not launch/, where ``import pretrain`` would find another file
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from common import runs
from common.errors import UserError, command
from common.runs import check_seed
from launch.options import Resources, RunOptions, located, parse, resources

if TYPE_CHECKING:
    from detection.config import TransferConfig
    from detection.evaluation import Kind
    from launch.slurm.following import Submitted
    from launch.slurm.job import Job
    from launch.weights import Source

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
        config: Files or names of det_configs/, or any Detectron2 YAML.
        weights: Checkpoints, run folders of pre-trainings, Detectron2's .pkl, or none. The job of
            a run folder waits for its end on Slurm; "none" is a random start. Default: the
            config's, or else the newest finished pre-training run.
        lr: SOLVER.BASE_LR for the config's own batch. Literally; other batches scale it.
            Default: the config's.
        batch_size: Images per iteration over all processes. Another than the config's scales
            learning rate, iterations and steps by Detectron2's linear rule. Default: the config's.
        seed: Seed of heads, order and augmentation.
        seeds: How many seeds, counted from --seed.
        label: Name of the method in tables. Default: what the checkpoint tells.
        dataset: Your data in COCO's format, to train and test on. Each
            NAME=ANNOTATIONS.json:IMAGES, or a name that ~/.config/lewel-transfer/datasets.toml
            defines. With --eval-only one, to test on. Default: the config's.
        eval_only: Only evaluate --weights, a trained detector. Such as a run's model_final.pth.
    """

    config: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="YAML ...")]
    weights: Annotated[tuple[str, ...], tyro.conf.arg(metavar="FILE ...")] = ()
    lr: Annotated[tuple[float, ...], tyro.conf.arg(metavar="LR ...")] = ()
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
    """Check everything, submit or run the jobs, and return their run folders."""
    from launch.slurm.following import follow_all

    jobs = plan(options, overrides)
    submitted = submit(jobs, options.resources, options.run.fresh)
    if options.resources.wait:
        follow_all(submitted)
    return [job.folder for job in jobs]


def submit(
    jobs: Sequence["Job"], resources: Resources, fresh: bool, skip_live: bool | None = None
) -> list["Submitted"]:
    """Submit or run the jobs of :func:`plan`, as :func:`launch.slurm.submission.launch` does."""
    from launch.slurm.submission import launch

    jobs = [_settled(job) for job in jobs]
    if not fresh:
        _warn_of_other_methods(jobs)
    return launch(jobs, resources, fresh, skip_live=skip_live)


def _settled(job: "Job") -> "Job":
    """The same with the SHA-256 of the weights, if a pre-training has left them meanwhile."""
    if job.after is None or not runs.is_finished(job.after):
        return job
    config = replace(job.config, weights=job.config.weights.settled())
    return replace(job, config=config, after=None)


def plan(
    options: Command, overrides: tuple[str, ...] = (), awaited: "Source | None" = None
) -> list["Job"]:
    """The jobs that a command line means, checked: everything that can be wrong before a job.

    Args:
        options: the command.
        overrides: KEY VALUE pairs.
        awaited: weights of a pre-training that is still to be submitted, in the place of
            ``--weights``.
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
    import segmentation  # noqa: F401  its configs name what it registers
    from detection import own_data
    from detection.config import read, resolve
    from launch.slurm.resources import device, processes

    datasets = own_data.find(options.dataset, options.eval_only)
    if datasets:
        classes = [name for _, name in datasets[-1].categories]
        print(f"data: {', '.join(map(str, datasets))}; {len(classes)} classes", flush=True)
    yamls = [read(located(path)) for path in options.config]
    sources: dict[tuple[str | None, str], Source] = {}  # a checkpoint is read once for all configs
    chosen: dict[TransferConfig, Source] = {}
    for yaml, wanted in itertools.product(yamls, options.weights or (None,)):
        key = wanted, yaml.hash if wanted is None else ""
        if key not in sources:
            sources[key] = awaited or _find(options, wanted, yaml.cfg)
        for lr, seed in itertools.product(options.lr or (None,), range(options.seeds)):
            config = resolve(
                yaml,
                sources[key].weights,
                lr=lr,
                batch_size=options.batch_size,
                seed=options.seed + seed,
                overrides=overrides,
                device=device(options.resources),
                eval_only=options.eval_only,
                datasets=datasets,
            )
            chosen[config] = sources[key]
    if options.run.name and len(chosen) > 1:
        raise UserError(
            f"--name {options.run.name} is one folder, but these are {len(chosen)} runs; leave "
            "it out."
        )
    count = processes(options.resources)
    jobs: dict[Path, Job] = {}
    repairs: list[str] = []
    for config, source in chosen.items():
        job, repaired = _job(config, source, options.run, count)
        repairs += repaired
        _require_one_run(jobs.setdefault(job.folder, job), job)
    for line in dict.fromkeys((*repairs, *(source.line for source in chosen.values()))):
        print(f"warning: {line}" if line in repairs else line, flush=True)
    return list(jobs.values())


def _find(options: Command, wanted: str | None, cfg: Any) -> "Source":
    """The weights, or with ``--eval-only`` the detector, that start a run of a config."""
    from launch.detectors import find_detector
    from launch.weights import find_weights

    if options.eval_only:
        return find_detector(wanted, options.label)
    return find_weights(wanted, cfg, options.label, options.run.output_dir.resolve())


def _require_one_run(one: "Job", other: "Job") -> None:
    """Raise if two different runs would be one folder, as those of YAMLs of one name would."""
    mine, yours = one.config.identity(), other.config.identity()
    differing = [f"{k} ({mine[k]} and {yours[k]})" for k in mine if mine[k] != yours[k]]
    if differing:
        raise UserError(
            f"two of these runs would both be {one.folder}, though they differ in "
            f"{', '.join(differing)}; give one a YAML of another name, or start it by itself "
            "with a --name."
        )


def _job(
    config: "TransferConfig", source: "Source", run: RunOptions, count: int
) -> tuple["Job", list[str]]:
    """A run in ``count`` processes, checked; and sentences about repairs of its data sets."""
    from detection.coco import require_usable
    from detection.config import LOW_LR
    from detection.evaluation import kind_of
    from detection.schedule import steps_of
    from launch.slurm.job import Job

    cfg = config.detectron2()
    entries = _entries()
    kind = kind_of(cfg, entries)
    solver = cfg.SOLVER
    source.check_fits(cfg)
    repairs = require_usable(cfg)
    if config.eval_only:
        print(f"{config.config_name}: evaluation of {config.weights.path}", flush=True)
    else:
        kind.mapper(cfg)  # it refuses what it cannot do
        if not 0 < config.lr < math.inf:
            raise UserError(f"--lr {config.lr:g}: must be more than 0.")
        key = "--batch-size" if config.scaled else "SOLVER.IMS_PER_BATCH"
        runs.check_divides(key, config.batch_size, count)
        print(
            f"{config.config_name}, seed {config.seed}: {solver.MAX_ITER} iterations of "
            f"{config.batch_size} images ({config.batch_size // count} on each of {count} "
            f"processes, {config.batch_size} in a synchronised BatchNorm), lr {config.lr:g}, "
            f"steps {steps_of(solver)}"
            f"{', scaled from the batch of the config' * config.scaled}",
            flush=True,
        )
        if config.low_lr:
            print(
                f"warning: lr {config.lr:g} is under {LOW_LR:g} times "
                f"{config.config_name}'s own {config.own_lr:g}; the run goes on with it and its "
                "row is marked low_lr (README, 'The learning rate 2e-4')",
                flush=True,
            )
    folder, output_dir = run.folder_of(kind.job, config), run.output_dir.resolve()
    steps = 0 if config.eval_only else solver.MAX_ITER
    return Job(kind.job, entries[kind], config, folder, output_dir, steps, source.after), repairs


def _entries() -> "dict[Kind, Callable[[TransferConfig, Path], Any]]":
    """The kinds of transfer jobs, and the function of each."""
    import detection.train
    import segmentation.train
    from detection.evaluation import DETECTION
    from segmentation.evaluation import SEGMENTATION

    return {DETECTION: detection.train.transfer, SEGMENTATION: segmentation.train.transfer}


def _warn_of_other_methods(jobs: Sequence["Job"]) -> None:
    """Warn where a finished run's row names another method than its command does now."""
    for job in jobs:
        try:
            found = json.loads((job.folder / runs.FINAL).read_text())["method"]
        except (OSError, ValueError, KeyError, TypeError):  # not finished, or results.py names it
            continue
        method = job.config.weights.method
        if found != method:
            print(
                f"warning: the row of {job.folder} says {found}, not {method}; change its method "
                f"in {runs.FINAL} there if that is wrong, and start launch/results.py",
                flush=True,
            )


def _check_trains_nothing(options: Command) -> None:
    """Raise for what ``--eval-only`` has no use for."""
    given = {
        "--lr": bool(options.lr),
        "--batch-size": options.batch_size is not None,
        "--seeds": options.seeds > 1,
    }
    for option in given:
        if given[option]:
            raise UserError(
                f"{option} is for training, and --eval-only trains nothing; leave it out."
            )


@command
def main() -> None:
    """The console command."""
    run()


if __name__ == "__main__":
    main()
