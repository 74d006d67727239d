"""Labelled images: where they are, and in which order a training sees them."""

from pretrain.data.loading import warn_of_skipped
from pretrain.data.locate import DEMO, check_enough, open_images, open_validation
from pretrain.data.order import StepBatches
from pretrain.data.source import Batch, ImageSource

__all__ = [
    "DEMO",
    "Batch",
    "ImageSource",
    "StepBatches",
    "check_enough",
    "open_images",
    "open_validation",
    "warn_of_skipped",
]
