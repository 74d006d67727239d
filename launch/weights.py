"""What ``--weights`` of a transfer means, and whether it fits the config."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.utils.file_io import PathManager

from common import runs
from common.errors import UserError
from common.files import sha256
from detection import convert
from detection.config import PLACEHOLDER, Weights, read_config
from detection.pickles import read_architecture

NONE = "none"


@dataclass(frozen=True)
class Source:
    """Weights that were found and checked; :meth:`write` makes the file that a job reads.

    Attributes:
        weights: what the job is told.
        description: one line for the user.
        architecture: torchvision's name of the ResNet, "" where that is not known.
        backbone: what is to be converted; None for files in Detectron2's own format, which are
            used as they are, and for a random initialisation.
    """

    weights: Weights
    description: str
    architecture: str = ""
    backbone: convert.Backbone | None = None

    def write(self) -> None:
        """Write the converted weights, once for all jobs that start from them."""
        if self.backbone is not None and not Path(self.weights.path).exists():
            convert.write(self.backbone, self.weights.path)

    def check_fits(self, cfg: Any) -> None:
        """Raise unless a Detectron2 config treats these weights as they were trained.

        Raises:
            UserError: naming the key that disagrees.
        """
        if not self.architecture:
            return
        wanted = (
            ("MODEL.RESNETS.DEPTH", cfg.MODEL.RESNETS.DEPTH, convert.depth_of(self.architecture)),
            ("INPUT.FORMAT", cfg.INPUT.FORMAT, "RGB"),
            ("MODEL.RESNETS.STRIDE_IN_1X1", cfg.MODEL.RESNETS.STRIDE_IN_1X1, False),
        )
        for key, value, right in wanted:
            if value != right:
                raise UserError(
                    f"{key} is {value} in the config, but these weights "
                    f"({self.architecture}) need {right}; choose another "
                    "config, such as an _infomin one."
                )


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
            wanted = str(_newest_pretraining(output_dir, cfg.MODEL.RESNETS.DEPTH))
            found_how = " (the newest finished pre-training run)"
    if wanted == NONE:
        return Source(Weights(method=label or "random"), "weights: none, random initialisation")
    path = _local(wanted)
    digest = sha256(path)
    description = f"weights: {wanted}{found_how}, sha256 {digest[:8]}"
    if path.suffix == ".pkl":
        weights = Weights(str(path), digest, label or path.stem)
        note = f"{description}, Detectron2's format, used as it is"
        return Source(weights, note, read_architecture(path))
    backbone = convert.read_backbone(path)
    if not (label or backbone.method):
        raise UserError(
            f"{wanted} does not tell which method trained it; add --label METHOD for "
            "the results table."
        )
    weights = Weights(
        str((output_dir / "runs" / "weights" / f"{digest[:16]}.pkl").resolve()),
        digest,
        label or backbone.method,
        backbone.norm,
        backbone.epochs,
    )
    return Source(
        weights,
        f"{description}, {backbone.format}, {backbone.architecture}, "
        f"{len(backbone.tensors)} backbone tensors",
        backbone.architecture,
        backbone,
    )


def _local(wanted: str) -> Path:
    """The local file of a path or of an address that Detectron2 knows."""
    if "://" in wanted:
        try:
            return Path(PathManager.get_local_path(wanted))
        except Exception as error:
            raise UserError(
                f"--weights {wanted} could not be fetched ({error}); download it and give its path."
            ) from error
    path = Path(wanted).expanduser()
    if not path.is_file():
        raise UserError(
            f"--weights {wanted}: no such file; give a checkpoint, or 'none' for a "
            "random initialisation."
        )
    return path.resolve()


def _newest_pretraining(output_dir: Path, depth: int) -> Path:
    for folder, metrics in reversed(runs.finished_runs(output_dir, "pretrain")):
        if not metrics["demo"] and metrics["backbone"] == f"resnet{depth}":
            return folder / str(metrics["checkpoint"])
    raise UserError(
        f"no finished ResNet-{depth} pre-training run in {output_dir / 'runs'}; give "
        "--weights CHECKPOINT, or 'none' for a random initialisation."
    )
