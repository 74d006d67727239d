"""LEWEL_B: Learning Where to Learn in Cross-View Self-Supervised Learning.

Huang et al., CVPR 2022 (arXiv 2203.14898), section 3. BYOL, plus a second branch: the
projector's outputs at the pixels, read as alignment maps, tell where to pool the features that
the second branch aligns between the views. ``eman``: Cai et al., Exponential Moving Average
Normalization, CVPR 2021.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pretrain.networks import MLP, resnet_trunk
from pretrain.selfsupervised import SelfSupervised, cosine_distance


class Neck(nn.Module):
    """Global embedding and aligned embeddings of a feature map (section 3.2 of the paper)."""

    def __init__(
        self,
        in_dim: int,
        hidden_dim: int,
        dim: int,
        layers: int,
        heads: int,
        scale: float,
        norm: str,
    ) -> None:
        super().__init__()
        if dim % heads or in_dim % heads:
            raise ValueError(f"heads={heads} must divide proj_dim={dim} and {in_dim} features")
        self.heads, self.scale = heads, scale
        self.proj = MLP(in_dim, hidden_dim, dim, layers, norm)
        self.proj_obj = MLP(in_dim, hidden_dim, dim, layers, norm)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(b, c, h, w) -> z (b, dim, 1) and aligned (b, dim, dim / heads)."""
        pixels = features.flatten(2)
        z, maps = self.align(pixels)
        # Head k pools the k-th group of features with the k-th group of maps.
        grouped = pixels.unflatten(1, (self.heads, -1))
        aligned = torch.einsum("bkcp,bkmp->bkcm", grouped, maps.to(grouped.dtype)).flatten(1, 2)
        return z, self.proj_obj(aligned)

    def align(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(b, c, n) -> z (b, dim, 1) and alignment maps (b, heads, dim / heads, n).

        A map's weights are positive, and add up to 1 over the n positions.
        """
        pooled = pixels.mean(2, keepdim=True)
        projected = self.proj(torch.cat([pooled, pixels], 2))
        z, alignment = projected[..., :1], projected[..., 1:]
        alignment = (F.normalize(alignment, dim=1) / self.scale).softmax(2)
        return z, alignment.unflatten(1, (self.heads, -1))


class Encoder(nn.Module):
    """Backbone without its pooling and fc, then the neck."""

    def __init__(
        self,
        backbone: str,
        norm: str,
        hidden_dim: int,
        dim: int,
        layers: int,
        heads: int,
        scale: float,
    ) -> None:
        super().__init__()
        self.backbone, channels = resnet_trunk(backbone, norm)
        self.neck = Neck(channels, hidden_dim, dim, layers, heads, scale, norm)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images (b, 3, h, w) -> z (b, dim, 1) and aligned (b, dim, dim / heads)."""
        return self.neck(self.backbone(x))


class LEWEL(SelfSupervised):
    """Online network with predictors, and a target network that follows it by EMA.

    Args:
        backbone: name of a torchvision ResNet.
        norm: ``eman`` (plain BN; the target in eval mode, its statistics an EMA of the online
            network's) or ``syncbn`` (SyncBatchNorm; the target in train mode).
        proj_dim: dimension of the embeddings.
        hidden_dim: width of the MLPs.
        neck_layers: layers of the neck's and the predictors' MLPs.
        heads: groups into which features and alignment maps are split.
        scale: temperature of the alignment maps' softmax.
        loss_weight: weight of the global branch; the aligned branch has the rest.
        base_momentum: the target's momentum at step 0.

    Example:
        >>> model = LEWEL("resnet18", proj_dim=32, hidden_dim=64)
        >>> loss = model(view1, view2)  # two views, each (b, 3, h, w)
    """

    def __init__(
        self,
        backbone: str = "resnet50",
        norm: str = "eman",
        proj_dim: int = 256,
        hidden_dim: int = 4096,
        neck_layers: int = 2,
        heads: int = 4,
        scale: float = 1.0,
        loss_weight: float = 0.5,
        base_momentum: float = 0.98,
    ) -> None:
        super().__init__(norm, base_momentum)
        self.loss_weight = loss_weight
        self.online_net = Encoder(backbone, norm, hidden_dim, proj_dim, neck_layers, heads, scale)
        self.target_net = copy.deepcopy(self.online_net).requires_grad_(False)
        self.predictor = MLP(proj_dim, hidden_dim, proj_dim, neck_layers, norm)
        self.predictor_obj = MLP(proj_dim, hidden_dim, proj_dim, neck_layers, norm)
        self.train()

    def forward(self, view1: Tensor, view2: Tensor) -> Tensor:
        """The symmetric loss of two views, each (b, 3, h, w); a scalar.

        ``branch_losses`` then holds the two branches' losses.
        """
        z1, aligned1 = self.online_net(view1)
        z2, aligned2 = self.online_net(view2)
        with torch.no_grad():
            target1, target2 = self.target_net(view1), self.target_net(view2)
        global1, global2 = self.predictor(z1), self.predictor(z2)
        local1, local2 = self.predictor_obj(aligned1), self.predictor_obj(aligned2)
        global_loss = cosine_distance(global1, target2[0]) + cosine_distance(global2, target1[0])
        aligned_loss = cosine_distance(local1, target2[1]) + cosine_distance(local2, target1[1])
        self.embedding = z1.detach().flatten(1)
        self.branch_losses = {
            "loss_global": global_loss.detach(),
            "loss_aligned": aligned_loss.detach(),
        }
        return self.loss_weight * global_loss + (1 - self.loss_weight) * aligned_loss

    def networks(self) -> tuple[Encoder, Encoder]:
        """The online and the target network."""
        return self.online_net, self.target_net
