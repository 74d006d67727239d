"""A ResNet with a linear classifier on its pooled features."""

import hashlib
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn

from common.backbones import build_resnet, read_backbone
from common.errors import UserError
from common.files import sha256
from common.weights import Weights
from pretrain.evaluation.config import ClassifierConfig
from pretrain.evaluation.protocols import MOMENTUM


class Classifier(nn.Module):
    """Images (b, 3, h, w) -> logits (b, classes).

    A frozen backbone stays in eval mode and has no gradients. The classifier itself is always in
    the parameters' own precision; autocast is for the backbone.

    Args:
        backbone: images -> features (b, dim).
        dim: features of the backbone.
        classes: number of classes.
        frozen: whether only the classifier learns.
        dtype: of the backbone's autocast; None for none.
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
    """The ResNet of a checkpoint, or with PyTorch's random weights; images -> features (b, c).

    Raises:
        UserError: if the checkpoint cannot be read, or is not the one that it was.
    """
    if not weights.path:
        resnet = torchvision.models.get_model(weights.architecture)
        resnet.fc = nn.Identity()
        return resnet
    if not Path(weights.path).is_file():
        raise UserError(
            f"{weights.path} is gone, from which this run started; put it back, or start a run of "
            "another checkpoint (a run that still trains keeps only its last two)."
        )
    if sha256(weights.path) != weights.sha256:
        raise UserError(
            f"{weights.path} is no longer the file of sha256 {weights.sha256[:8]} that this run "
            "started from; put that back, or start a run of the new one."
        )
    return build_resnet(read_backbone(weights.path))


def feature_dim(architecture: str) -> int:
    """2048 for resnet50."""
    with torch.device("meta"):
        return int(torchvision.models.get_model(architecture).fc.in_features)


def fingerprint(network: nn.Module) -> str:
    """SHA-256 of a network's tensors, buffers too, with their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def make_optimizer(model: Classifier, config: ClassifierConfig) -> torch.optim.SGD:
    """SGD for the classifier, and for a backbone that learns; each at a rate of its own."""
    parts: dict[str, nn.Module] = {"lr": model.head}
    if not config.frozen:
        parts = {"backbone_lr": model.backbone, "head_lr": model.head}
    groups = [
        {"params": list(part.parameters()), "rate": name, "lr": config.rates[name]}
        for name, part in parts.items()
    ]
    return torch.optim.SGD(groups, momentum=MOMENTUM, weight_decay=config.weight_decay)
