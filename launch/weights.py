"""What ``--weights`` of a transfer means, and whether it fits the config."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.utils.file_io import PathManager

from common import backbones
from common.errors import UserError
from common.files import sha256
from common.locks import locked
from common.weights import Weights
from detection import convert
from detection.config import PLACEHOLDER, read_config
from detection.pickles import read_architecture
from launch.awaited import Pretraining, find_pretraining
from launch.checkpoints import NONE, local_file, newest_pretraining, read_checkpoint

# Of 0..255, RGB: ImageNet's, with which self-supervised methods normalise.
PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)
SUPERVISED = "detectron2://ImageNetPretrained/"  # Detectron2's own, of ImageNet's labels


@dataclass(frozen=True)
class Source:
    """Weights that were found and checked; :meth:`write` makes the file that a job reads.

    Attributes:
        weights: what the job is told.
        description: one line for the user.
        backbone: what is to be converted; None for files in Detectron2's own format, which are
            used as they are, and for a random initialisation.
        awaited: the pre-training run that has yet to leave them.
    """

    weights: Weights
    description: str
    backbone: backbones.Backbone | None = None
    awaited: Pretraining | None = None

    def write(self) -> None:
        """Write the converted weights, once for all jobs that start from them."""
        path = Path(self.weights.path)
        if self.backbone is None or path.exists():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.with_name(f".{path.name}.lock")):
            if not path.exists():
                convert.write(self.backbone, path)

    def check_fits(self, cfg: Any) -> None:
        """Raise unless a Detectron2 config treats these weights as they were trained.

        Raises:
            UserError: naming the key that disagrees.
        """
        architecture = self.weights.architecture
        if not architecture:
            return
        model, resnet = cfg.MODEL, cfg.MODEL.RESNETS
        wanted = (
            ("MODEL.RESNETS.DEPTH", resnet.DEPTH, backbones.depth_of(architecture)),
            ("INPUT.FORMAT", cfg.INPUT.FORMAT, "RGB"),
            ("MODEL.PIXEL_MEAN", list(model.PIXEL_MEAN), list(PIXEL_MEAN)),
            ("MODEL.PIXEL_STD", list(model.PIXEL_STD), list(PIXEL_STD)),
            ("MODEL.RESNETS.STRIDE_IN_1X1", resnet.STRIDE_IN_1X1, False),
        )
        for key, value, right in wanted:
            if value != right:
                raise UserError(
                    f"{key} is {value} in the config, but these weights "
                    f"({architecture}) need {right}; choose a config that has it, or other "
                    "weights."
                )
        if "BN" not in resnet.NORM:
            raise UserError(
                f"MODEL.RESNETS.NORM is {resnet.NORM!r} in the config, which has no place for "
                "the statistics of these weights' BatchNorm; use SyncBN."
            )


def find_detector(wanted: str | None, label: str | None) -> Source:
    """A trained detector, for ``--eval-only``.

    Raises:
        UserError: if there is no such file.
    """
    if wanted in (None, NONE):
        raise UserError("--eval-only needs --weights DETECTOR, such as a run's model_final.pth.")
    path = _local(str(wanted))
    digest = sha256(path)
    weights = Weights("", str(path), digest, label or path.parent.name)
    return Source(weights, f"weights: {wanted}, sha256 {digest[:8]}, a trained detector")


def find_weights(wanted: str | None, config: str, label: str | None, output_dir: Path) -> Source:
    """Find, read and check the weights; writes nothing.

    Args:
        wanted: ``--weights``; None for the default.
        config: path of the Detectron2 YAML.
        label: ``--label``, which overrides what a checkpoint tells of its method.
        output_dir: the folder that holds ``runs/``.

    Raises:
        UserError: if there are none, or they cannot be read, or their method is unknown.
    """
    found_how = ""
    if wanted is None:
        cfg = read_config(config)
        wanted = cfg.MODEL.WEIGHTS or NONE
        if wanted == PLACEHOLDER:
            wanted = str(newest_pretraining(output_dir, f"resnet{cfg.MODEL.RESNETS.DEPTH}"))
            found_how = " (the newest finished pre-training run)"
    if wanted == NONE:
        return Source(Weights(method=label or "random"), "weights: none, random initialisation")
    run = find_pretraining(wanted)
    if run is not None and run.job_id:
        return await_weights(run, label)
    if run is not None:
        wanted = str(run.checkpoint)
    path = _local(wanted)
    if path.suffix == ".pkl":
        digest = sha256(path)
        note = f"weights: {wanted}{found_how}, sha256 {digest[:8]}, Detectron2's format"
        supervised = "supervised" if wanted.startswith(SUPERVISED) else path.stem
        weights = Weights(read_architecture(path), str(path), digest, label or supervised)
        return Source(weights, f"{note}, used as it is")
    found = read_checkpoint(wanted, path, label)
    backbone, digest = found.backbone, found.sha256
    weights = Weights(
        backbone.architecture,
        str((output_dir / "runs" / "weights" / f"{digest[:16]}.pkl").resolve()),
        digest,
        found.method,
        backbone.norm,
        backbone.epochs,
    )
    return Source(
        weights,
        f"weights: {wanted}{found_how}, sha256 {digest[:8]}, {found.description}",
        backbone,
    )


def await_weights(run: Pretraining, label: str | None) -> Source:
    """What a pre-training run that is not finished will leave."""
    return Source(run.weights(label), run.description, awaited=run)


def _local(wanted: str) -> Path:
    """The local file of a path or of an address that Detectron2 knows."""
    if "://" in wanted:
        try:
            return Path(PathManager.get_local_path(wanted))
        except Exception as error:
            raise UserError(
                f"--weights {wanted} could not be fetched ({error}); download it and give its path."
            ) from error
    return local_file(wanted)
