"""Accuracy on the validation split, epoch by epoch, each image once over all processes."""

from pathlib import Path

import torch

from common.distributed import World
from common.errors import UserError
from pretrain.data.images import ImageSource
from pretrain.evaluation import cache
from pretrain.evaluation.accuracy import count_correct
from pretrain.evaluation.config import ClassifierConfig
from pretrain.evaluation.features import Features, evaluating, extract
from pretrain.evaluation.network import Classifier
from pretrain.evaluation.ranks import add_up, buffers_of_rank0


class Validation:
    """A classifier's validation images; of a frozen backbone, their features, computed once.

    Args:
        model: the classifier, on the process's device.
        images: the validation split.
        config: of the evaluation.
        folder: the run folder, where features are kept.
        world: this process; all processes call everything together.
    """

    def __init__(
        self,
        model: Classifier,
        images: ImageSource,
        config: ClassifierConfig,
        folder: Path,
        world: World,
    ) -> None:
        self.model, self.images, self.config, self.world = model, images, config, world
        self.features: Features | None = None
        if config.frozen:
            made_from = {
                "weights_sha256": config.weights.sha256,
                "images": images.description,
                "image_size": config.image_size,
                "dtype": str(model.dtype),
            }
            self.features = cache.cached(folder, made_from, world, self._backbone_features)

    @torch.no_grad()
    def count(self) -> tuple[int, int, int, int]:
        """Images whose class was guessed first; among the first five; all; unreadable ones.

        Raises:
            UserError: if no image can be read.
        """
        with evaluating(self.model):
            if self.features is not None:
                logits, labels = self.model.head(self.features.vectors), self.features.labels
                skipped = self.features.skipped
            else:
                found = self._logits()
                logits, labels, skipped = found.vectors, found.labels, found.skipped
        right = count_correct(logits, labels) if len(labels) else torch.zeros(3).long()
        counts = add_up(torch.cat([right.cpu(), torch.tensor([skipped])]), self.world)
        top1, top5, total, skipped = counts.tolist()
        if not total:
            raise UserError(
                f"none of the validation images in {self.images.description} can be read."
            )
        return top1, top5, total, skipped

    def _backbone_features(self) -> Features:
        config, model = self.config, self.model
        return extract(
            model.backbone, self.images, config.image_size, config.workers, self.world, model.dtype
        )

    def _logits(self) -> Features:
        """Logits in the place of features; the model has an autocast of its own."""
        config, model = self.config, self.model
        with buffers_of_rank0(model, self.world):
            return extract(model, self.images, config.image_size, config.workers, self.world)
