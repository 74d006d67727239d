"""What linear and semi-supervised evaluation have in common: weights, checks, and the job."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import runs
from common.checkpoints import is_pickle
from common.errors import UserError
from common.resnets import ARCHITECTURES
from common.weights import Weights
from launch.awaited import (
    Awaited,
    Pretraining,
    check_waits,
    find_pretraining,
    start_awaited,
    waiting_folder,
)
from launch.checkpoints import NONE, local_file, newest_pretraining, read_checkpoint
from launch.cluster.follow import Submitted, follow_all
from launch.cluster.jobs import Job
from launch.cluster.processes import device, processes
from launch.cluster.submit import launch
from launch.options import Resources, RunOptions
from pretrain.evaluation.classifier import classify
from pretrain.evaluation.config import LinearConfig, SemiConfig
from pretrain.evaluation.splits import open_splits

RANDOM_BACKBONE = "resnet50"


@dataclass(frozen=True)
class WeightOptions:
    """Which backbone is evaluated.

    Attributes:
        weights: A checkpoint of ours or of a known format, or "none" for random weights; or the
            folder of a pre-training run, for whose end the job waits on Slurm. Default: the
            newest finished pre-training run.
        backbone: The ResNet of random weights, resnet50 if left out; also, which pre-training
            runs the default looks at. A checkpoint itself tells its own.
        label: Name of the pre-training method in the results table, where the checkpoint does not
            tell.
    """

    weights: str | None = None
    backbone: str | None = None
    label: str | None = None

    def find(self, output_dir: Path) -> tuple[Weights, str, Pretraining | None]:
        """The weights, a line about them, and whose end they wait for; writes nothing.

        Raises:
            UserError: if there are none, or they cannot be read, or their method is unknown.
        """
        if self.backbone not in (None, *ARCHITECTURES):
            raise UserError(
                f"--backbone {self.backbone} is not a ResNet that can be evaluated; choose one of "
                f"{', '.join(ARCHITECTURES)}."
            )
        if self.weights == NONE:
            name = self.backbone or RANDOM_BACKBONE
            method = self.label or "random"
            return Weights(name, method=method), f"weights: none, a random {name}", None
        wanted, how = self.weights, ""
        if wanted is None:
            wanted = str(newest_pretraining(output_dir, self.backbone))
            how = " (the newest finished pre-training run)"
        run = find_pretraining(wanted)
        if run is not None and run.job_id:
            return run.weights(self.label), run.description, run
        if run is not None:
            wanted = str(run.checkpoint)
        path = local_file(wanted)
        if is_pickle(path):
            raise UserError(
                f"--weights {wanted} is in Detectron2's format; give the checkpoint that it was "
                "converted from."
            )
        found = read_checkpoint(wanted, path, self.label)
        backbone = found.backbone
        if self.backbone not in (None, backbone.architecture):
            raise UserError(
                f"--backbone {self.backbone}, but {wanted} holds a {backbone.architecture}; leave "
                "--backbone out."
            )
        weights = Weights(
            backbone.architecture,
            str(found.path),
            found.sha256,
            found.method,
            backbone.norm,
            backbone.epochs,
            backbone.recipe,
        )
        line = f"weights: {wanted}{how}, sha256 {found.sha256[:8]}, {found.description}"
        return weights, line, None


@dataclass(frozen=True)
class AwaitedClassifier(Awaited):
    """An evaluation whose weights are yet to come.

    Attributes:
        protocol: with the device that was asked for.
        source: the checkpoint that will be there.
        run: where its folder will be.
        expected: identity of the run, with a placeholder for the weights.
    """

    protocol: LinearConfig | SemiConfig
    source: WeightOptions
    run: RunOptions
    expected: dict[str, Any]

    def identity(self) -> dict[str, Any]:
        """The run's, with a placeholder for the weights."""
        return self.expected

    def prepare(self) -> Job:
        """The run, from weights that are there."""
        return plan(self.protocol, self.source, self.run, Resources(cluster="debug")).job


@dataclass(frozen=True)
class Planned:
    """An evaluation that was checked.

    Attributes:
        job: the run.
        lines: about it, for the user.
        after: the Slurm job that it waits for; "" for none.
    """

    job: Job
    lines: str
    after: str


def plan(
    protocol: LinearConfig | SemiConfig,
    source: WeightOptions,
    run: RunOptions,
    resources: Resources,
) -> Planned:
    """Check everything that can be wrong; writes nothing.

    Raises:
        UserError: for whatever is wrong.
    """
    output_dir = run.output_dir.resolve()
    weights, line, awaited = source.find(output_dir)
    if protocol.device == "auto":
        protocol = dataclasses.replace(protocol, device=device(resources))
    config = protocol.resolve(weights)
    runs.check_divides("--batch-size", config.batch_size, processes(resources))
    folder = run.folder(config.kind, config.run_name())
    splits = open_splits(config)
    images = len(splits.training)
    steps = config.epochs * (images // config.batch_size)
    job = Job(classify, config, folder, output_dir, steps)
    if awaited is not None:
        source = dataclasses.replace(source, weights=str(awaited.checkpoint))
        waiting = AwaitedClassifier(
            protocol, source, dataclasses.replace(run, output_dir=output_dir), config.identity()
        )
        folder = waiting_folder(run, config.kind, config.run_name())
        job = Job(start_awaited, waiting, folder, output_dir, steps)
    lines = f"{line}\ntraining images: {images} ({splits.subset})"
    return Planned(job, lines, awaited.job_id if awaited else "")


def start(
    protocol: LinearConfig | SemiConfig,
    source: WeightOptions,
    run: RunOptions,
    resources: Resources,
) -> Path:
    """Check everything, submit or run the job, and return its run folder."""
    planned = plan(protocol, source, run, resources)
    submitted = submit(planned, run, resources)
    if resources.wait:
        follow_all(submitted)
    return planned.job.folder


def submit(
    planned: Planned, run: RunOptions, resources: Resources, skip_live: bool | None = None
) -> list[Submitted]:
    """Submit or run the job of :func:`plan`; it, if Slurm has it.

    Args:
        planned: the run.
        run: its folder.
        resources: its own.
        skip_live: as for :func:`launch.cluster.submit.launch`.
    """
    check_waits(planned.after, resources)
    print(planned.lines, flush=True)
    skip_live = bool(planned.after) or skip_live
    return launch([planned.job], resources, run.fresh, planned.after, skip_live)
