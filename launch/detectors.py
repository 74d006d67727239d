"""A trained detector, as ``--weights`` of ``--eval-only``, and what stands beside it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from common import checkpoints, runs
from common.errors import UserError
from common.files import sha256
from common.weights import Weights
from detection.convert import is_state, read_weights
from launch import pixels
from launch.checkpoints import NONE
from launch.weights import Source, local_path, unchecked


def find_detector(wanted: str | None, label: str | None) -> Source:
    """A trained detector, read without running code of the file's; writes nothing.

    The ``metrics.json`` of a finished run beside it tells its pre-training and its classes, the
    ``config.yaml`` how its training read images.

    Args:
        wanted: ``--weights``.
        label: ``--label``, which overrides what ``metrics.json`` tells of the method.

    Raises:
        UserError: if there is no such file, or no detector that Detectron2 can load is in it.
    """
    if wanted in (None, NONE):
        raise UserError("--eval-only needs --weights DETECTOR, such as a run's model_final.pth.")
    path = local_path(str(wanted))
    _check(path)
    origin = _metrics(path.parent)
    weights = Weights(
        "",
        str(path),
        sha256(path),
        label or str(origin.get("method") or ""),
        str(origin.get("norm") or ""),
        origin.get("pretrain_epochs"),
    )
    classes = tuple(origin.get("classes") or ())
    line = f"weights: {wanted}, sha256 {weights.sha256[:8]}, a trained detector"
    yaml = path.parent / "config.yaml"
    settings = _settings(yaml)
    if settings is None:
        line += f"\n{unchecked(f'no config.yaml beside {wanted} tells')}"
        return Source(weights, line, classes=classes)
    trained_with = f"trained with {yaml}"
    return Source(weights, line, pixels=settings, trained_with=trained_with, classes=classes)


def _check(path: Path) -> None:
    """Raise unless Detectron2, which decides by a file's name, can load it, and it is harmless."""
    if path.name.endswith(".pkl"):
        if not checkpoints.is_pickle(path):
            raise UserError(
                f"{path} is not in Detectron2's format, as its name says; if it is a PyTorch "
                "checkpoint of a detector, give it a name that ends in .pth."
            )
        read_weights(path)
        return
    if path.name.endswith(".pyth") or checkpoints.is_safetensors(path):
        raise UserError(
            f"{path} is of a kind that Detectron2 does not load (safetensors, or .pyth, its name "
            "for pycls' files); save the detector with torch.save, under a name that ends in .pth."
        )
    if checkpoints.is_pickle(path):
        raise UserError(
            f"{path} is a plain pickle, not a PyTorch checkpoint; if this is a detector of "
            "Detectron2's, give the file a name that ends in .pkl, by which Detectron2 knows it."
        )
    loaded = checkpoints.load(path, plain=True)
    if not is_state(loaded.get("model", loaded) if isinstance(loaded, Mapping) else None):
        raise UserError(
            f"{path} is no detector, for it holds more than tensors, or none; --eval-only needs a "
            "trained one, such as a run's model_final.pth."
        )


def _metrics(folder: Path) -> dict[str, Any]:
    """Final metrics of the run in a folder; of Detectron2's file of that name, nothing."""
    try:
        metrics = json.loads((folder / runs.FINAL).read_text())
    except (OSError, ValueError):
        return {}
    ours = isinstance(metrics, dict) and {"method", "norm", "pretrain_epochs"} <= metrics.keys()
    return metrics if ours else {}


def _settings(yaml: Path) -> dict[str, Any] | None:
    """All pixel settings in a detector's config; None if it has not all, or is not readable."""
    try:
        found = pixels.settings(CfgNode.load_yaml_with_base(str(yaml)))
    except Exception:  # a file of something else raises almost anything
        return None
    return found if found.keys() == {*pixels.KEYS} else None
