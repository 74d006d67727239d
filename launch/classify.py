"""Linear and semi-supervised evaluation: weights, checks, and the job."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from common import runs
from common.errors import UserError
from common.resnets import ARCHITECTURES
from common.weights import Weights
from launch.options import Resources, RunOptions, parse, resources
from pretrain.evaluation.config import LinearConfig, SemiConfig

if TYPE_CHECKING:
    from launch.slurm.job import Job
    from launch.weights import Source

RANDOM_BACKBONE = "resnet50"


@dataclass(frozen=True)
class WeightOptions:
    """Backbone that is evaluated.

    Attributes:
        weights: A checkpoint, the run folder of a pre-training, or none. Checkpoints may be of any
            known format; the job of a run folder waits for its end on Slurm; "none" is a random
            start. Default: the newest finished pre-training run.
        backbone: The ResNet of random weights. Also, which pre-training runs the default looks at;
            a checkpoint itself tells its own. Default: resnet50.
        label: Name of the method in tables. Default: what the checkpoint tells.
    """

    weights: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    backbone: str | None = None
    label: str | None = None


@dataclass(frozen=True)
class Command:
    """The options of both evaluations."""

    weights: WeightOptions = field(default_factory=WeightOptions)
    config: LinearConfig | SemiConfig = field(default_factory=LinearConfig)
    run: RunOptions = field(default_factory=RunOptions)
    resources: Resources = field(default_factory=resources)


@dataclass(frozen=True)
class Linear(Command):
    """Train a linear classifier of ImageNet on frozen features; a row of results/linear.csv.

    Typed again, the same command resumes the run, or says that it is finished.
    """

    config: LinearConfig = field(default_factory=LinearConfig)


@dataclass(frozen=True)
class Semi(Command):
    """Fine-tune on 1 or 10 % of the labels of ImageNet; a row of results/semi.csv.

    Typed again, the same command resumes the run, or says that it is finished.
    """

    config: SemiConfig = field(default_factory=SemiConfig)


def run(kind: type[Command], prog: str, arguments: list[str] | None = None) -> Path:
    """Check a command line, submit or run the job, and return its run folder."""
    return start(parse(kind, prog, arguments))


def start(options: Command) -> Path:
    """Check everything, submit or run the job, and return its run folder."""
    from launch.slurm.following import follow_all
    from launch.slurm.submission import launch

    job = plan(options)
    submitted = launch([job], options.resources, options.run.fresh)
    if options.resources.wait:
        follow_all(submitted)
    return job.folder


def plan(options: Command) -> "Job":
    """The job that a command line means, checked: everything that can be wrong before a job."""
    config = options.config.resolve(Weights())
    from launch.slurm.job import Job
    from launch.slurm.resources import device, processes
    from pretrain.evaluation.classifier import classify
    from pretrain.evaluation.splits import open_splits

    output_dir = options.run.output_dir.resolve()
    source = _find(options.weights, output_dir)
    where = device(options.resources) if config.device == "auto" else config.device
    config = dataclasses.replace(config, weights=source.weights, device=where)
    runs.check_divides("--batch-size", config.batch_size, processes(options.resources))
    folder = options.run.folder_of(config.kind, config)
    splits = open_splits(config)
    images = len(splits.training)
    print(f"{source.line}\ntraining images: {images} ({splits.subset})", flush=True)
    steps = config.epochs * (images // config.batch_size)
    return Job(config.kind, classify, config, folder, output_dir, steps, source.after)


def _find(options: WeightOptions, output_dir: Path) -> "Source":
    """Find, read and check the weights; write nothing."""
    from common.checkpoints import is_pickle
    from launch.weights import NONE, Source, find_backbone, newest_pretraining

    if options.backbone not in (None, *ARCHITECTURES):
        raise UserError(
            f"--backbone {options.backbone} is not a ResNet that can be evaluated; choose one of "
            f"{', '.join(ARCHITECTURES)}."
        )
    if options.weights == NONE:
        name = options.backbone or RANDOM_BACKBONE
        weights = Weights(name, method=options.label or "random")
        return Source(weights, f"weights: none, a random {name}")
    wanted, how = options.weights, ""
    if wanted is None:
        wanted = str(newest_pretraining(output_dir, options.backbone))
        how = " (the newest finished pre-training run)"
    path = Path(wanted).expanduser()
    if path.is_file() and is_pickle(path):
        raise UserError(
            f"--weights {wanted} is in Detectron2's format; give the checkpoint that it was "
            "converted from."
        )
    source = find_backbone(wanted, options.label, how)
    found = source.weights.architecture
    if options.backbone not in (None, found):
        raise UserError(
            f"--backbone {options.backbone}, but {wanted} holds a {found}; leave --backbone out."
        )
    return source
