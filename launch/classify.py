"""What linear and semi-supervised evaluation have in common: weights, checks, and the job."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from common.backbones import ARCHITECTURES
from common.distributed import check_divides
from common.errors import UserError
from launch.checkpoints import NONE, local_file, newest_pretraining, read_checkpoint
from launch.cluster import device, processes
from launch.jobs import Job
from launch.options import Resources, RunOptions
from launch.submit import launch
from pretrain.evaluation.classifier import classify
from pretrain.evaluation.config import LinearConfig, SemiConfig, Weights
from pretrain.evaluation.splits import open_splits

RANDOM_BACKBONE = "resnet50"


@dataclass(frozen=True)
class WeightOptions:
    """Which backbone is evaluated.

    Attributes:
        weights: A checkpoint of ours or of a known format, or "none" for random weights. Default:
            the newest finished pre-training run.
        backbone: The ResNet of random weights, resnet50 if left out; also, which pre-training
            runs the default looks at. A checkpoint itself tells its own.
        label: Name of the pre-training method in the results table, where the checkpoint does not
            tell.
    """

    weights: str | None = None
    backbone: str | None = None
    label: str | None = None

    def find(self, output_dir: Path) -> tuple[Weights, str]:
        """The weights, and a line about them; writes nothing.

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
            return Weights(name, method=method), f"weights: none, a random {name}"
        wanted, how = self.weights, ""
        if wanted is None:
            wanted = str(newest_pretraining(output_dir, self.backbone))
            how = " (the newest finished pre-training run)"
        if wanted.endswith(".pkl"):
            raise UserError(
                f"--weights {wanted} is in Detectron2's format; give the checkpoint that it was "
                "converted from."
            )
        found = read_checkpoint(wanted, local_file(wanted), self.label)
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
        )
        line = f"weights: {wanted}{how}, sha256 {found.sha256[:8]}, {found.description}"
        return weights, line


def plan(
    protocol: LinearConfig | SemiConfig,
    source: WeightOptions,
    run: RunOptions,
    resources: Resources,
) -> tuple[Job, str]:
    """Check everything that can be wrong; the job, and lines about it. Writes nothing.

    Raises:
        UserError: for whatever is wrong.
    """
    output_dir = run.output_dir.resolve()
    weights, line = source.find(output_dir)
    config = protocol.resolve(weights)
    if config.device == "auto":
        config = dataclasses.replace(config, device=device(resources))
    check_divides("--batch-size", config.batch_size, processes(resources))
    folder = run.folder(config.kind, config.run_name())
    splits = open_splits(config)
    images = len(splits.training)
    steps = config.epochs * (images // config.batch_size)
    job = Job(classify, config, folder, output_dir, steps)
    return job, f"{line}\ntraining images: {images} ({splits.subset})"


def start(
    protocol: LinearConfig | SemiConfig,
    source: WeightOptions,
    run: RunOptions,
    resources: Resources,
) -> Path:
    """Submit or run the job of :func:`plan`, and return its run folder."""
    job, lines = plan(protocol, source, run, resources)
    print(lines, flush=True)
    launch([job], resources, run.fresh)
    return job.folder
