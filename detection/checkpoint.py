"""Detectron2 checkpoints in a run folder, and a check that the weights filled the backbone."""

import logging
from pathlib import Path
from typing import Any

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.utils import comm
from torch import nn

from common.distributed import World
from common.errors import UserError
from common.files import point
from common.resnets import COUNTER
from common.run_checkpoints import RunCheckpoints
from detection import compat

FINAL = "model_final.pth"

log = logging.getLogger(__name__)


class RunCheckpointer(DetectionCheckpointer):
    """Detectron2's checkpointer on a run's checkpoints, ``series``; without them it loads only.

    ``missing`` are the names of the model's tensors that the last load did not find.
    """

    def __init__(
        self, model: nn.Module, series: RunCheckpoints | None = None, **checkpointables: Any
    ) -> None:
        folder = str(series.folder) if series else ""
        super().__init__(model, folder, save_to_disk=False, **checkpointables)
        self.series = series
        self.missing: list[str] = []

    def save_step(self, step: int) -> None:
        """Save after ``step`` iterations; in every process, for some states are of all."""
        assert self.series is not None
        data: dict[str, Any] = {"model": self.model.state_dict()}
        data |= {key: obj.state_dict() for key, obj in self.checkpointables.items()}
        if comm.is_main_process():
            self.tag_last_checkpoint(self.series.save(step, data).name)

    def resume(self, world: World) -> bool:
        """Load the newest checkpoint that can be read; False if there is none."""
        assert self.series is not None
        found = self.series.load(world, self._read)
        if world.is_main:
            self.series.tidy(found[0] if found else None)
        return found is not None

    def finish(self) -> None:
        """Name the newest checkpoint ``model_final.pth``, as Detectron2 does."""
        assert self.series is not None
        point(self.series.folder / FINAL, self.series.newest_first()[0])

    def _read(self, path: Path) -> Any:
        try:
            return self.load(str(path))
        except Exception as error:  # a file cut short raises almost anything
            compat.forget_load(self)
            raise UserError(f"{path} cannot be read ({type(error).__name__}).") from error

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
    names = [k for k in model.state_dict() if not k.endswith(COUNTER)]
    bottom_up = [k for k in names if k.startswith("backbone.bottom_up.")]
    return bottom_up or [
        k
        for k in names
        if k.startswith(("backbone.", "roi_heads.res5."))
        and not k.startswith("roi_heads.res5.norm.")
    ]


def require_backbone(checkpointer: RunCheckpointer, weights: str) -> int:
    """Raise unless the weights just loaded filled every tensor of the backbone; count these."""
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
