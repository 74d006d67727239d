"""LEWEL_B: Learning Where to Learn in Cross-View Self-Supervised Learning.

Huang et al., CVPR 2022 (arXiv 2203.14898), section 3. BYOL, plus a second branch: the
projector's outputs at the pixels, read as alignment maps, tell where to pool the features that
the second branch aligns between the views. ``eman``: Cai et al., Exponential Moving Average
Normalization, CVPR 2021.
"""

import copy
from collections import OrderedDict
from collections.abc import Iterator

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from pretrain.batchnorm import norm_class
from pretrain.schedules import target_momentum


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
        """(b, in_dim, n) -> (b, out_dim, n)."""
        return self.mlp(x)


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
        pooled = pixels.mean(2, keepdim=True)
        projected = self.proj(torch.cat([pooled, pixels], 2))
        z, alignment = projected[..., :1], projected[..., 1:]
        alignment = (F.normalize(alignment, dim=1) / self.scale).softmax(2)
        # Head k pools the k-th group of features with the k-th group of maps.
        grouped = pixels.unflatten(1, (self.heads, -1))
        maps = alignment.unflatten(1, (self.heads, -1))
        aligned = torch.einsum("bkcp,bkmp->bkcm", grouped, maps.to(grouped.dtype)).flatten(1, 2)
        return z, self.proj_obj(aligned)


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
        resnet = torchvision.models.get_model(backbone, norm_layer=norm_class(norm, 2))
        trunk = [(name, m) for name, m in resnet.named_children() if name not in ("avgpool", "fc")]
        self.backbone = nn.Sequential(OrderedDict(trunk))
        self.neck = Neck(resnet.fc.in_features, hidden_dim, dim, layers, heads, scale, norm)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images (b, 3, h, w) -> z (b, dim, 1) and aligned (b, dim, dim / heads)."""
        return self.neck(self.backbone(x))


class LEWEL(nn.Module):
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
        super().__init__()
        self.norm, self.loss_weight, self.base_momentum = norm, loss_weight, base_momentum
        self.online_net = Encoder(backbone, norm, hidden_dim, proj_dim, neck_layers, heads, scale)
        self.target_net = copy.deepcopy(self.online_net).requires_grad_(False)
        self.predictor = MLP(proj_dim, hidden_dim, proj_dim, neck_layers, norm)
        self.predictor_obj = MLP(proj_dim, hidden_dim, proj_dim, neck_layers, norm)
        self.branch_losses: dict[str, Tensor] = {}
        self.train()

    def train(self, mode: bool = True) -> "LEWEL":
        """Set train or eval mode; an EMAN target always stays in eval mode."""
        super().train(mode)
        if self.norm == "eman":
            self.target_net.eval()
        return self

    def forward(self, view1: Tensor, view2: Tensor) -> Tensor:
        """The symmetric loss of two views, each (b, 3, h, w); a scalar.

        ``branch_losses`` then holds the two branches' shares of it, unweighted and detached.
        """
        online1, online2 = self._predict(view1), self._predict(view2)
        with torch.no_grad():
            target1, target2 = self.target_net(view1), self.target_net(view2)
        global_loss = _distance(online1[0], target2[0]) + _distance(online2[0], target1[0])
        aligned_loss = _distance(online1[1], target2[1]) + _distance(online2[1], target1[1])
        self.branch_losses = {
            "loss_global": global_loss.detach(),
            "loss_aligned": aligned_loss.detach(),
        }
        return self.loss_weight * global_loss + (1 - self.loss_weight) * aligned_loss

    def _predict(self, view: Tensor) -> tuple[Tensor, Tensor]:
        z, aligned = self.online_net(view)
        return self.predictor(z), self.predictor_obj(aligned)

    @torch.no_grad()
    def update_target(self, step: int, total_steps: int) -> float:
        """Move the target towards the online network; call after the optimizer's step.

        Args:
            step: the step just taken, counted from 0.
            total_steps: steps of the whole training.

        Returns:
            The momentum used.
        """
        momentum = target_momentum(step, total_steps, self.base_momentum)
        for online, target in self._followed():
            if target.is_floating_point():
                target.lerp_(online, 1 - momentum)
            else:  # num_batches_tracked
                target.copy_(online)
        return momentum

    def _followed(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield from zip(self.online_net.parameters(), self.target_net.parameters(), strict=True)
        if self.norm == "eman":
            yield from zip(self.online_net.buffers(), self.target_net.buffers(), strict=True)


def _distance(prediction: Tensor, target: Tensor) -> Tensor:
    """2 - 2 cos of vectors (b, dim, n) along dim, averaged over the b * n vectors."""
    exact = torch.promote_types(prediction.dtype, torch.float32)  # never in half precision
    with torch.autocast(prediction.device.type, enabled=False):
        prediction = F.normalize(prediction.to(exact), dim=1)
        target = F.normalize(target.to(exact), dim=1)
        return 2 - 2 * torch.einsum("bdn,bdn->bn", prediction, target).mean()
