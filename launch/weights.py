"""Backbones that ``--weights`` of a command means, and their fit to a config."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import runs
from common.errors import UserError
from common.files import sha256
from common.weights import Weights

NONE = "none"
CHECKPOINT = "checkpoint.pth.tar"  # of a pre-training run
SUPERVISED = "detectron2://ImageNetPretrained/"  # Detectron2's own, of ImageNet's labels

# How a config reads images and where its ResNet strides.
PIXELS = (
    "INPUT.FORMAT",
    "MODEL.PIXEL_MEAN",
    "MODEL.PIXEL_STD",
    "MODEL.RESNETS.STRIDE_IN_1X1",
)
# Of 0..255, RGB: ImageNet's, with which torchvision and self-supervised methods normalise.
TORCHVISION = dict(
    zip(PIXELS, ("RGB", [123.675, 116.28, 103.53], [58.395, 57.12, 57.375], False), strict=True)
)
# Of Caffe, and so of Detectron2's own ImageNet weights: the deviation is in the first convolution.
MSRA = dict(zip(PIXELS, ("BGR", [103.53, 116.28, 123.675], [1.0, 1.0, 1.0], True), strict=True))


@dataclass(frozen=True)
class Source:
    """Weights that were found and checked."""

    weights: Weights  # for the job
    line: str  # for the user, with a warning of what could not be checked
    after: Path | None = None  # run folder of the pre-training that has yet to leave them
    pixels: Mapping[str, Any] | None = None  # values of PIXELS in their training, where known
    trained_with: str = ""  # the config of that training, where there is one
    classes: tuple[str, ...] = ()  # of a detector, in its order, where known

    def check_fits(self, cfg: Any) -> None:
        """Raise a UserError unless a Detectron2 config treats the weights as their training did."""
        from detectron2.data import MetadataCatalog

        from common import resnets

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
        found = pixel_settings(cfg)
        found |= {
            f"MODEL.RESNETS.{key}": resnet[key]
            for key in ("DEPTH", "NUM_GROUPS", "WIDTH_PER_GROUP")
        }
        wanted = {**self.pixels} if self.pixels else {}
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


def pixel_settings(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Values of :data:`PIXELS` in a Detectron2 config, or in the YAML of one."""
    found = {}
    for key in PIXELS:
        value: Any = cfg
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is not None:
            found[key] = list(value) if isinstance(value, tuple) else value
    return found


def find_weights(wanted: str | None, cfg: Any, label: str | None, output_dir: Path) -> Source:
    """Find, read and check the weights of a transfer; write nothing.

    Args:
        wanted: ``--weights``; None for the default.
        cfg: the Detectron2 config.
        label: ``--label``, which overrides the method that a checkpoint tells.
        output_dir: the folder that holds ``runs/``.
    """
    from common.checkpoints import is_pickle
    from detection.config import PLACEHOLDER

    how = ""
    if wanted is None:
        wanted = cfg.MODEL.WEIGHTS or NONE
        if wanted == PLACEHOLDER:
            wanted = str(newest_pretraining(output_dir, f"resnet{cfg.MODEL.RESNETS.DEPTH}"))
            how = " (the newest finished pre-training run)"
    if wanted == NONE:
        return Source(Weights(method=label or "random"), "weights: none, random initialisation")
    if not os.path.isdir(Path(wanted).expanduser()):
        path = local_path(wanted)
        if is_pickle(path):
            return _find_detectron2(wanted, how, path, label)
    return find_backbone(wanted, label, how)


def find_backbone(wanted: str, label: str | None, how: str = "") -> Source:
    """Find, read and check a checkpoint, or that of a pre-training run's folder; write nothing.

    ``how`` tells in the line for the user where the default came from.
    """
    from common import backbones

    folder = Path(wanted).expanduser().resolve()
    if os.path.isdir(folder):  # Path's own raises inside a folder that is not ours
        config = _pretraining(folder)
        if config is None:
            raise UserError(
                f"--weights {wanted} is a folder, but no pre-training run; give a checkpoint, or a "
                "folder of runs/pretrain/."
            )
        if not runs.is_finished(folder):
            return to_come(folder, config, label)
        wanted = str(folder / CHECKPOINT)
    path = local_path(wanted)
    found, digest = backbones.read_backbone(path), sha256(path)
    weights = Weights(
        found.architecture,
        str(path),
        digest,
        _require_method(wanted, label or found.method, found.format),
        found.norm,
        found.epochs,
        found.recipe,
        path.parent.name if _pretraining(path.parent) is not None else "",
    )
    kind = f"{found.format}, {found.architecture}, {len(found.tensors)} backbone tensors"
    line = f"weights: {wanted}{how}, sha256 {digest[:8]}, {kind}"
    return Source(weights, line, pixels=TORCHVISION)


def to_come(folder: Path, config: dict[str, Any], label: str | None) -> Source:
    """The weights that a pre-training run will leave, of its absolute folder and configuration."""
    from pretrain import methods
    from pretrain.config import ResolvedConfig

    weights = Weights(
        config["backbone"],
        str(folder / CHECKPOINT),
        method=label or methods.find(config["method"]).title,
        norm=config["norm"],
        epochs=config["epochs"],
        recipe=ResolvedConfig(**config).unpublished(),
        run=folder.name,
    )
    return Source(weights, f"weights: of {folder}, once it is finished", folder, TORCHVISION)


def _pretraining(folder: Path) -> dict[str, Any] | None:
    """The configuration of the pre-training run in a folder; None if there is none."""
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text())
        return config if {"method", "norm", "epochs", "backbone"} <= config.keys() else None
    except (OSError, ValueError, AttributeError):
        return None


def _find_detectron2(wanted: str, how: str, path: Path, label: str | None) -> Source:
    """Weights in Detectron2's own format, which are used as they are."""
    from detection.convert import AUTHOR, CAFFE2, read_weights
    from detection.convert import TORCHVISION as CONVERTED

    if not path.name.endswith(".pkl"):
        raise UserError(
            f"{wanted} is a plain pickle, not a PyTorch checkpoint; if these are Detectron2 "
            "weights, give the file a name that ends in .pkl, by which Detectron2 knows them."
        )
    found, digest = read_weights(path), sha256(path)
    msra = found.author == CAFFE2 and found.architecture != ""
    method = found.method + " (target network)" * (found.network == "target" and bool(found.method))
    if msra or wanted.startswith(SUPERVISED):
        method = "supervised"
    treatment = None
    if found.author in (AUTHOR, CONVERTED):
        treatment = TORCHVISION
    elif msra:
        treatment = MSRA
    weights = Weights(
        found.architecture,
        str(path),
        digest,
        _require_method(wanted, label or method),
        found.norm,
        found.epochs,
        found.recipe,
    )
    kind = f"Detectron2's format, {found.architecture or 'not a ResNet that is known here'}"
    line = f"weights: {wanted}{how}, sha256 {digest[:8]}, {kind}, used as it is"
    if treatment is None:
        author = f"author {found.author!r}" if found.signed else "which names no __author__"
        line += unchecked(f"{wanted} ({author}) does not tell")
    return Source(weights, line, pixels=treatment)


def newest_pretraining(output_dir: Path, backbone: str | None = None) -> Path:
    """The checkpoint of the newest finished pre-training, not a demo's, of a ResNet or of any."""
    found = runs.finished_runs(output_dir, "pretrain")
    for folder, metrics in reversed(found):
        if not metrics["demo"] and backbone in (None, metrics["backbone"]):
            return folder / str(metrics["checkpoint"])
    kind = f"{backbone.replace('resnet', 'ResNet-')} " if backbone else ""
    but = " but on the embedded data" if any(metrics["demo"] for _, metrics in found) else ""
    raise UserError(
        f"no finished {kind}pre-training run{but} in {output_dir / 'runs'}; give "
        "--weights CHECKPOINT, or 'none' for a random initialisation."
    )


def _require_method(wanted: str, method: str, kind: str = "") -> str:
    """``method``, which a file of this kind or the user must tell."""
    if method:
        return method
    known = f" ({kind})" if kind else ""
    raise UserError(
        f"{wanted} does not tell which method trained it{known}; add --label METHOD for "
        "the results table."
    )


def unchecked(why: str) -> str:
    """A line of warning that a config's pixel settings were not compared with the weights'."""
    return (
        f"\nwarning: {why} how its training read images, so that {', '.join(PIXELS)} of the "
        "config could not be checked; a wrong one costs accuracy without an error"
    )


def local_path(wanted: str) -> Path:
    """The local file of a path or of an address that Detectron2 knows."""
    if "://" in wanted:
        from detectron2.utils.file_io import PathManager

        try:
            return Path(PathManager.get_local_path(wanted))
        except Exception as error:
            raise UserError(
                f"--weights {wanted} could not be fetched ({error}); download it and give its path."
            ) from error
    path = Path(wanted).expanduser()
    if not os.path.isfile(path):
        raise UserError(
            f"--weights {wanted}: no such file; give a checkpoint, or 'none' for a "
            "random initialisation."
        )
    if not os.access(path, os.R_OK):
        raise UserError(f"--weights {wanted} may not be read by you; ask its owner for a copy.")
    return path.resolve()
