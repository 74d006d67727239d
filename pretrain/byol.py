"""BYOL: Grill et al., NeurIPS 2020 (arXiv 2006.07733); LEWEL_B without its aligned branch."""

import copy

import torch
from torch import Tensor, nn

from pretrain.networks import MLP, resnet_trunk
from pretrain.selfsupervised import SelfSupervised, cosine_distance


class Encoder(nn.Module):
    """Backbone, average pooling, projector; tensors are named as in LEWEL's encoder."""

    def __init__(self, backbone: str, norm: str, hidden_dim: int, dim: int, layers: int) -> None:
        super().__init__()
        self.backbone, channels = resnet_trunk(backbone, norm)
        self.neck = nn.ModuleDict({"proj": MLP(channels, hidden_dim, dim, layers, norm)})

    def forward(self, x: Tensor) -> Tensor:
        """Images (b, 3, h, w) -> embeddings (b, dim, 1)."""
        return self.neck["proj"](self.backbone(x).flatten(2).mean(2, keepdim=True))


class BYOL(SelfSupervised):
    """Online network with a predictor, and the target network; arguments as for LEWEL."""

    def __init__(
        self,
        backbone: str = "resnet50",
        norm: str = "eman",
        proj_dim: int = 256,
        hidden_dim: int = 4096,
        neck_layers: int = 2,
        base_momentum: float = 0.98,
    ) -> None:
        super().__init__(norm, base_momentum)
        self.online_net = Encoder(backbone, norm, hidden_dim, proj_dim, neck_layers)
        self.target_net = copy.deepcopy(self.online_net).requires_grad_(False)
        self.predictor = MLP(proj_dim, hidden_dim, proj_dim, neck_layers, norm)
        self.train()

    def networks(self) -> tuple[Encoder, Encoder]:
        return self.online_net, self.target_net

    def forward(self, view1: Tensor, view2: Tensor) -> Tensor:
        """The symmetric loss of two views, each (b, 3, h, w); a scalar."""
        z1, z2 = self.online_net(view1), self.online_net(view2)
        with torch.no_grad():
            target1, target2 = self.target_net(view1), self.target_net(view2)
        loss = cosine_distance(self.predictor(z1), target2)
        loss = loss + cosine_distance(self.predictor(z2), target1)
        self.embedding = z1.detach().flatten(1)
        self.branch_losses = {"loss_global": loss.detach()}
        return loss
