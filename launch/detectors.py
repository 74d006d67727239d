"""Trained detectors, which ``--eval-only`` tests."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common import runs
from common.errors import UserError
from common.files import sha256
from common.weights import Weights
from launch.weights import NONE, PIXELS, Source, local_path, pixel_settings, unchecked


def find_detector(wanted: str | None, label: str | None) -> Source:
    """A trained detector, read without running code of the file's; write nothing.

    The ``metrics.json`` of a finished run beside it tells its pre-training and its classes, the
    ``config.yaml`` how its training read images. ``label`` overrides the method that they tell.
    """
    from detectron2.config import CfgNode

    if wanted in (None, NONE):
        raise UserError("--eval-only needs --weights DETECTOR, such as a run's model_final.pth.")
    path = local_path(str(wanted))
    _check_detector(path)
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
    try:
        settings = pixel_settings(CfgNode.load_yaml_with_base(str(yaml)))
    except Exception:  # a file of something else raises almost anything
        settings = {}
    if settings.keys() != {*PIXELS}:
        line += unchecked(f"no config.yaml beside {wanted} tells")
        return Source(weights, line, classes=classes)
    return Source(
        weights, line, pixels=settings, trained_with=f"trained with {yaml}", classes=classes
    )


def _check_detector(path: Path) -> None:
    """Raise unless Detectron2, which decides by a file's name, can load it, and it is harmless."""
    from common import checkpoints
    from detection.convert import is_state, read_weights

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
