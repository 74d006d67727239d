"""Detectron2 checkpoints that a kill cannot cut short, and proof that the weights were taken."""

import logging
import os
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

from common.errors import UserError
from common.files import atomic_write

log = logging.getLogger(__name__)


class AtomicCheckpointer(DetectionCheckpointer):
    """Writes by renaming, and keeps what Detectron2 did not find in the weights."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.missing: list[str] = []

    def save(self, name: str, **kwargs: Any) -> None:
        """Save model, checkpointables and ``kwargs`` as ``name.pth``."""
        if not self.save_dir or not self.save_to_disk:
            return
        data: dict[str, Any] = {"model": self.model.state_dict()}
        data |= {key: obj.state_dict() for key, obj in self.checkpointables.items()} | kwargs
        with atomic_write(os.path.join(self.save_dir, f"{name}.pth")) as file:
            torch.save(data, file)
        self.tag_last_checkpoint(f"{name}.pth")

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Point ``last_checkpoint`` to a file."""
        with atomic_write(os.path.join(self.save_dir, "last_checkpoint"), "w") as file:
            file.write(last_filename_basename)

    def _load_model(self, checkpoint: Any) -> Any:
        incompatible = super()._load_model(checkpoint)
        self.missing = [
            *incompatible.missing_keys,
            *(key for key, *_ in incompatible.incorrect_shapes),
        ]
        return incompatible


def backbone_names(model: nn.Module) -> list[str]:
    """Names of a detector's tensors that come from a pre-trained ResNet.

    The bottom-up network, and C4's res5 in the ROI head without the protocol's extra norm.
    BatchNorm's counters are left out: not every pre-training has them, and nothing reads them.
    """
    state = model.state_dict().keys()
    prefix = (
        "backbone.bottom_up."
        if any(k.startswith("backbone.bottom_up.") for k in state)
        else "backbone."
    )
    return [
        k
        for k in state
        if k.startswith((prefix, "roi_heads.res5."))
        and not k.startswith("roi_heads.res5.norm.")
        and not k.endswith("num_batches_tracked")
    ]


def require_backbone(checkpointer: AtomicCheckpointer, weights: str) -> int:
    """Raise unless the weights just loaded filled every tensor of the backbone.

    Returns:
        The number of those tensors.

    Raises:
        UserError: naming a tensor that stayed random.
    """
    names = backbone_names(checkpointer.model)
    missing = sorted(set(names) & set(checkpointer.missing))
    if missing:
        raise UserError(
            f"{weights} has no tensor for {len(missing)} of the detector's "
            f"{len(names)} backbone tensors, such as {missing[0]}; do its depth and "
            "the config's agree?"
        )
    log.info("the weights filled all %d backbone tensors (BatchNorm counters aside)", len(names))
    return len(names)
