"""The transfer job of ``detection``, for the configs of this package too."""

from pathlib import Path
from typing import Any

from detection import train
from detection.config import TransferConfig


def transfer(config: TransferConfig, folder: Path) -> dict[str, Any]:
    """:func:`detection.train.transfer`, where ``segmentation`` is registered.

    A job is pickled by its function's name: a process that unpickles this one has imported this
    package, and so knows its configs.
    """
    return train.transfer(config, folder)
