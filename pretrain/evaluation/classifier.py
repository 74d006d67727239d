"""Linear and semi-supervised evaluation: a ResNet with a classifier, a task of the engine."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from common.backbones import build_resnet, read_backbone
from common.distributed import World
from common.errors import UserError
from common.weights import Weights
from pretrain import engine
from pretrain.augment import RandomViews, crop_and_flip
from pretrain.collectives import add_up, buffers_of_rank0
from pretrain.data.images import Batch
from pretrain.data.locate import DEMO
from pretrain.evaluation.config import MOMENTUM, ClassifierConfig, decay
from pretrain.evaluation.features import Accuracy, Features, count_correct, evaluating, extract
from pretrain.evaluation.splits import open_splits
from pretrain.precision import autocast_dtype, make_scaler


def classify(config: ClassifierConfig, folder: Path) -> dict[str, Any]:
    """Train a classifier to the last epoch; see :func:`pretrain.engine.train`."""
    return engine.train(lambda run: Classification(run.settled(config), run.world), config, folder)


class Classifier(nn.Module):
    """Images (b, 3, h, w) -> logits (b, classes); ``backbone`` gives features (b, dim).

    A frozen backbone stays in eval mode and has no gradients. The classifier itself is always in
    the parameters' own precision; autocast to ``dtype`` is for the backbone.
    """

    def __init__(
        self,
        backbone: nn.Module,
        dim: int,
        classes: int,
        frozen: bool,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.head = backbone, nn.Linear(dim, classes)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)
        self.frozen, self.dtype = frozen, dtype
        self.backbone.requires_grad_(not frozen)
        self.train()

    def train(self, mode: bool = True) -> "Classifier":
        """Switch modes, but for a frozen backbone."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def features(self, images: Tensor) -> Tensor:
        """(b, 3, h, w) -> (b, dim)."""
        with torch.autocast(images.device.type, dtype=self.dtype, enabled=self.dtype is not None):
            features = self.backbone(images)
        return features.to(self.head.weight.dtype)

    def forward(self, images: Tensor) -> Tensor:
        """(b, 3, h, w) -> (b, classes)."""
        return self.head(self.features(images))


def load_backbone(weights: Weights) -> nn.Module:
    """The ResNet of a checkpoint, or with random weights; images -> features (b, c)."""
    if weights.path:
        return build_resnet(read_backbone(weights.path))
    resnet = torchvision.models.get_model(weights.architecture)
    resnet.fc = nn.Identity()
    return resnet


def feature_dim(architecture: str) -> int:
    """2048 for resnet50."""
    with torch.device("meta"):
        return int(torchvision.models.get_model(architecture).fc.in_features)


@dataclass
class Progress(engine.Progress):
    """The engine's, and counts of the last validation's images."""

    top1: int = 0  # right at the first guess
    top5: int = 0  # right among the first five
    evaluated: int = 0  # read
    unreadable_val: int = 0


class Classification(engine.Task):
    """A classifier on a backbone; of a frozen one, checkpoints have the classifier alone."""

    suffix = ".pth"
    accuracy = "top1"
    epoch_rows = False
    config: ClassifierConfig
    progress: Progress

    def __init__(self, config: ClassifierConfig, world: World) -> None:
        super().__init__(world, autocast_dtype(config.amp, world))
        self.config, self.progress = config, Progress()
        splits = open_splits(config)
        self.source, self.validation, self.subset = splits
        self.views = RandomViews((crop_and_flip(config.image_size),), config.seed)
        torch.manual_seed(config.seed)
        self.network = Classifier(
            load_backbone(config.weights),
            feature_dim(config.weights.architecture),
            len(self.source.classes),
            config.frozen,
            self.dtype,
        ).to(world.device)
        parts: dict[str, nn.Module] = {"lr": self.network.head}
        size = config.image_size
        inputs = torch.zeros(2, 3, size, size, device=world.device)
        if config.frozen:
            self.model: nn.Module = self.network.head
            self.scaler = make_scaler(None)  # the classifier's gradients are float32
            inputs = torch.zeros(2, self.network.head.in_features, device=world.device)
        else:
            self.model = self.network
            parts = {"backbone_lr": self.network.backbone, "head_lr": self.network.head}
        groups = [
            {"params": list(part.parameters()), "rate": name, "lr": config.rates[name]}
            for name, part in parts.items()
        ]
        self.optimizer = torch.optim.SGD(
            groups, momentum=MOMENTUM, weight_decay=config.weight_decay
        )
        self.parallel = self.data_parallel(lambda model, x: model(x).sum(), self.model, inputs)
        self.features: Features | None = None  # of a frozen backbone, once they are extracted
        weights = config.weights
        self.title = f"{config.kind} evaluation of {weights.method} ({weights.architecture})"
        self.images = (
            f"{len(self.source)} training images ({self.subset}), {len(self.validation)} "
            "validation images"
        )

    def rates(self, step: int) -> dict[str, float]:
        factor = decay(step // self.steps_per_epoch, self.config.epochs)
        return {name: rate * factor for name, rate in self.config.rates.items()}

    def loss(self, batch: Batch) -> Tensor:
        device = self.world.device
        images, labels = (
            tensor.to(device, non_blocking=True) for tensor in (batch.views[0], batch.labels)
        )
        inputs = self.network.features(images) if self.config.frozen else images
        return F.cross_entropy(self.parallel(inputs), labels)

    def validates(self, epochs: int) -> bool:
        return epochs > 0

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Top-1 and top-5 in percent, which go into the progress as counts."""
        progress = self.progress
        with evaluating(self.network):
            found = self.logits()
        labels = found.labels
        right = count_correct(found.vectors, labels) if len(labels) else torch.zeros(3).long()
        counts = add_up(torch.cat([right.cpu(), torch.tensor([found.skipped])]), self.world)
        progress.top1, progress.top5, progress.evaluated, progress.unreadable_val = counts.tolist()
        if not progress.evaluated:
            raise UserError(
                f"none of the validation images in {self.validation.description} can be read."
            )
        return {
            "epoch_loss": progress.loss,
            "top1": Accuracy(progress.top1, progress.evaluated).percent,
            "top5": Accuracy(progress.top5, progress.evaluated).percent,
        }

    def logits(self) -> Features:
        """Logits of this process's share of the validation images, in the place of features."""
        config, network = self.config, self.network
        given = self.validation, config.image_size, config.workers, self.world
        if not config.frozen:
            with buffers_of_rank0(network):
                return extract(network, *given)  # it has an autocast of its own
        if self.features is None:
            self.features = extract(network.backbone, *given, self.dtype)
        if not len(self.features.labels):
            return self.features
        return replace(self.features, vectors=network.head(self.features.vectors))

    def contents(self) -> dict[str, Any]:
        return {"state_dict": self.model.state_dict()}

    def metrics(self) -> dict[str, Any]:
        """Accuracies after the last epoch, never the best of all epochs, and what they are of.

        Accuracies are in percent; ``top1_low`` to ``top1_high`` is the 95 % Wilson interval.
        """
        config, progress, weights = self.config, self.progress, self.config.weights
        top1 = Accuracy(progress.top1, progress.evaluated)
        low, high = top1.interval
        return {
            "kind": config.kind,
            "method": weights.method,
            "norm": weights.norm,
            "pretrain_epochs": weights.epochs,
            "pretrain_recipe": weights.recipe or None,
            "architecture": weights.architecture,
            "percent": config.percent,
            "subset": self.subset,
            **config.rates,
            "weight_decay": config.weight_decay,
            "batch_size": config.batch_size,
            "epochs": config.epochs,
            "image_size": config.image_size,
            "seed": config.seed,
            "top1": top1.percent,
            "top1_low": low,
            "top1_high": high,
            "top5": Accuracy(progress.top5, progress.evaluated).percent,
            "loss": progress.loss,
            "images_train": len(self.source),
            "images_val": progress.evaluated,
            "unreadable_images": progress.unreadable + progress.unreadable_val,
            "weights_sha256": weights.sha256,
            "wall_time_s": round(progress.seconds, 1),
            "data": config.data,
            "demo": config.data == DEMO,
        }
