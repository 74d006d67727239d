"""Training and evaluation of a segmentation network."""

from pathlib import Path
from typing import Any

from detection import train
from detection.config import TransferConfig
from segmentation.evaluation import SEGMENTATION


def transfer(config: TransferConfig, folder: Path) -> dict[str, Any]:
    """:func:`detection.train.transfer` of a config whose test set has masks of classes."""
    return train.transfer(config, folder, SEGMENTATION)
