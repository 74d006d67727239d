"""What ``--weights`` of a transfer means, and whether it fits the config."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.data import MetadataCatalog
from detectron2.utils.file_io import PathManager

from common import backbones, resnets
from common.checkpoints import is_pickle
from common.errors import UserError
from common.files import sha256
from common.locks import locked
from common.weights import Weights
from detection import convert
from detection.config import PLACEHOLDER, read_config
from launch import pixels
from launch.awaited import Pretraining, find_pretraining
from launch.checkpoints import (
    NONE,
    local_file,
    newest_pretraining,
    read_checkpoint,
    require_method,
)

SUPERVISED = "detectron2://ImageNetPretrained/"  # Detectron2's own, of ImageNet's labels


@dataclass(frozen=True)
class Source:
    """Weights that were found and checked; :meth:`write` makes the file that a job reads.

    Attributes:
        weights: what the job is told.
        description: a line for the user, and one for what could not be checked.
        backbone: what is to be converted; None for files in Detectron2's own format, which are
            used as they are, and for a random initialisation.
        awaited: the pre-training run that has yet to leave them.
        pixels: how their training read images, by key of Detectron2's config; None where unknown.
        trained_with: the config of the training that ``pixels`` are of, where there is one.
        classes: names of those that a detector tells apart, in its order; none where unknown.
    """

    weights: Weights
    description: str
    backbone: backbones.Backbone | None = None
    awaited: Pretraining | None = None
    pixels: Mapping[str, Any] | None = None
    trained_with: str = ""
    classes: tuple[str, ...] = ()

    def write(self) -> None:
        """Write the converted weights, once for all jobs that start from them.

        Raises:
            UserError: if they cannot be written.
        """
        path = Path(self.weights.path)
        if self.backbone is None or path.exists():
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with locked(path.with_name(f".{path.name}.lock")):
                if not path.exists():
                    convert.write(self.backbone, path)
        except OSError as error:
            raise UserError(
                f"cannot write the converted weights {path}: {error.strerror or error}; choose "
                "another --output-dir."
            ) from error

    def check_fits(self, cfg: Any) -> None:
        """Raise unless a Detectron2 config treats these weights as they were trained.

        Raises:
            UserError: naming the key or the data set that disagrees.
        """
        for name in cfg.DATASETS.TEST:
            classes = tuple(MetadataCatalog.get(name).get("thing_classes", ()))
            differing = sorted({*classes} ^ {*self.classes})
            if self.classes and classes != self.classes:
                raise UserError(
                    f"dataset {name} has other classes than this detector was trained for, or in "
                    f"another order{', such as ' * bool(differing)}{', '.join(differing[:3])}; "
                    "evaluate on one that has them."
                )
        architecture, resnet = self.weights.architecture, cfg.MODEL.RESNETS
        known = architecture or self.trained_with
        of = f" ({known})" if known else ""
        found: dict[str, Any] = pixels.settings(cfg)
        wanted = {**self.pixels} if self.pixels else {}
        shape = ("DEPTH", "NUM_GROUPS", "WIDTH_PER_GROUP")
        found |= {f"MODEL.RESNETS.{key}": resnet[key] for key in shape}
        if architecture:
            wanted |= {
                "MODEL.RESNETS.DEPTH": resnets.depth_of(architecture),
                "MODEL.RESNETS.NUM_GROUPS": 1,
                "MODEL.RESNETS.WIDTH_PER_GROUP": resnets.width_of(architecture),
            }
        for key, right in wanted.items():
            if found[key] != right:
                raise UserError(
                    f"{key} is {found[key]} in the config, but these weights{of} need {right}; "
                    "choose a config that has it, or other weights."
                )
        if architecture and "BN" not in resnet.NORM:
            raise UserError(
                f"MODEL.RESNETS.NORM is {resnet.NORM!r} in the config, which has no place for "
                "the statistics of these weights' BatchNorm; use SyncBN."
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
            wanted = str(newest_pretraining(output_dir, f"resnet{cfg.MODEL.RESNETS.DEPTH}"))
            found_how = " (the newest finished pre-training run)"
    if wanted == NONE:
        return Source(Weights(method=label or "random"), "weights: none, random initialisation")
    run = find_pretraining(wanted)
    if run is not None and run.job_id:
        return await_weights(run, label)
    if run is not None:
        wanted = str(run.checkpoint)
    path = local_path(wanted)
    if is_pickle(path):
        return _detectron2(wanted, found_how, path, label)
    found = read_checkpoint(wanted, path, label)
    backbone, digest = found.backbone, found.sha256
    weights = Weights(
        backbone.architecture,
        str((output_dir / "runs" / "weights" / f"{digest[:16]}.pkl").resolve()),
        digest,
        found.method,
        backbone.norm,
        backbone.epochs,
        backbone.recipe,
    )
    return Source(
        weights,
        f"weights: {wanted}{found_how}, sha256 {digest[:8]}, {found.description}",
        backbone,
        pixels=pixels.TORCHVISION,
    )


def await_weights(run: Pretraining, label: str | None) -> Source:
    """What a pre-training run that is not finished will leave."""
    return Source(run.weights(label), run.description, awaited=run, pixels=pixels.TORCHVISION)


def _detectron2(wanted: str, found_how: str, path: Path, label: str | None) -> Source:
    """Weights in Detectron2's own format, which are used as they are."""
    if not path.name.endswith(".pkl"):
        raise UserError(
            f"{wanted} is a plain pickle, not a PyTorch checkpoint; if these are Detectron2 "
            "weights, give the file a name that ends in .pkl, by which Detectron2 knows them."
        )
    found, digest = convert.read_weights(path), sha256(path)
    msra = found.author == convert.CAFFE2 and found.architecture != ""
    method = found.method + " (target network)" * (found.network == "target" and bool(found.method))
    if msra or wanted.startswith(SUPERVISED):
        method = "supervised"
    treatment = None
    if found.author in (convert.AUTHOR, convert.TORCHVISION):
        treatment = pixels.TORCHVISION
    elif msra:
        treatment = pixels.MSRA
    weights = Weights(
        found.architecture,
        str(path),
        digest,
        require_method(wanted, label or method),
        found.norm,
        found.epochs,
        found.recipe,
    )
    described = f"Detectron2's format, {found.architecture or 'not a ResNet that is known here'}"
    lines = f"weights: {wanted}{found_how}, sha256 {digest[:8]}, {described}, used as it is"
    if treatment is None:
        author = f"author {found.author!r}" if found.signed else "which names no __author__"
        lines += "\n" + unchecked(f"{wanted} ({author}) does not tell")
    return Source(weights, lines, pixels=treatment)


def unchecked(why: str) -> str:
    """The warning that a config's pixel settings could not be compared with the weights'."""
    return (
        f"warning: {why} how its training read images, so that {', '.join(pixels.KEYS)} of the "
        "config could not be checked; a wrong one costs accuracy without an error"
    )


def local_path(wanted: str) -> Path:
    """The local file of a path or of an address that Detectron2 knows.

    Raises:
        UserError: if there is none.
    """
    if "://" in wanted:
        try:
            return Path(PathManager.get_local_path(wanted))
        except Exception as error:
            raise UserError(
                f"--weights {wanted} could not be fetched ({error}); download it and give its path."
            ) from error
    return local_file(wanted)
