"""Which checkpoint ``--weights`` means, and what is in it; for every command that has it."""

import os
from dataclasses import dataclass
from pathlib import Path

from common import backbones, runs
from common.errors import UserError
from common.files import sha256

NONE = "none"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read.

    Attributes:
        path: of the file, absolute.
        sha256: of the file.
        method: pre-training method, for the results table.
        backbone: what is in it.
    """

    path: Path
    sha256: str
    method: str
    backbone: backbones.Backbone

    @property
    def description(self) -> str:
        """What it is, in a few words."""
        found = self.backbone
        return f"{found.format}, {found.architecture}, {len(found.tensors)} backbone tensors"


def local_file(wanted: str) -> Path:
    """The absolute path of a file.

    Raises:
        UserError: if there is none, or it may not be read.
    """
    path = Path(wanted).expanduser()
    if not os.path.isfile(path):
        raise UserError(
            f"--weights {wanted}: no such file; give a checkpoint, or 'none' for a "
            "random initialisation."
        )
    if not os.access(path, os.R_OK):
        raise UserError(f"--weights {wanted} may not be read by you; ask its owner for a copy.")
    return path.resolve()


def read_checkpoint(wanted: str, path: Path, label: str | None) -> Checkpoint:
    """Read and check a checkpoint.

    Args:
        wanted: ``--weights``.
        path: the file that it means.
        label: ``--label``, which overrides what the checkpoint tells of its method.

    Raises:
        UserError: if it cannot be read, or its method is unknown.
    """
    backbone = backbones.read_backbone(path)
    method = require_method(wanted, label or backbone.method, backbone.format)
    return Checkpoint(path, sha256(path), method, backbone)


def require_method(wanted: str, method: str, kind: str = "") -> str:
    """``method``, if there is one.

    Args:
        wanted: ``--weights``.
        method: what the file or the user tells.
        kind: what is known of the file instead.

    Raises:
        UserError: if neither tells it.
    """
    if not method:
        known = f" ({kind})" if kind else ""
        raise UserError(
            f"{wanted} does not tell which method trained it{known}; add --label METHOD for "
            "the results table."
        )
    return method


def newest_pretraining(output_dir: Path, backbone: str | None = None) -> Path:
    """The checkpoint of the newest finished pre-training run that is not a demo run.

    Args:
        output_dir: the folder that holds ``runs/``.
        backbone: torchvision's name of the ResNet; None for any.

    Raises:
        UserError: if there is none.
    """
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
