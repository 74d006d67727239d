"""The parts that networks of several methods are made of."""

from collections import OrderedDict

import torchvision
from torch import Tensor, nn

from pretrain.batchnorm import norm_class


class MLP(nn.Module):
    """``layers`` pointwise convolutions over positions, BatchNorm and ReLU between them.

    (b, in_dim, n) -> (b, out_dim, n). Weights: Kaiming normal, fan out.
    """

    def __init__(self, in_dim: int, hidden_dim: int, out_dim: int, layers: int, norm: str) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        for _ in range(layers - 1):
            blocks += [
                nn.Conv1d(in_dim, hidden_dim, 1, bias=False),
                norm_class(norm, 1)(hidden_dim),
                nn.ReLU(inplace=True),
            ]
            in_dim = hidden_dim
        blocks.append(nn.Conv1d(in_dim, out_dim, 1, bias=False))
        self.mlp = nn.Sequential(*blocks)
        for module in blocks:
            if isinstance(module, nn.Conv1d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x)


def resnet_trunk(backbone: str, norm: str) -> tuple[nn.Sequential, int]:
    """A torchvision ResNet without its pooling and fc, and its number of features.

    Images (b, 3, h, w) -> feature maps (b, c, h / 32, w / 32).
    """
    resnet = torchvision.models.get_model(backbone, norm_layer=norm_class(norm, 2))
    trunk = [(name, m) for name, m in resnet.named_children() if name not in ("avgpool", "fc")]
    return nn.Sequential(OrderedDict(trunk)), resnet.fc.in_features
