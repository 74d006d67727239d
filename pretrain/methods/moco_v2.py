"""MoCo v2: Chen et al., 2020 (arXiv 2003.04297)."""

import copy

import torch
import torchvision
from torch import Tensor, nn

from pretrain.augment import moco_views
from pretrain.batchnorm import norm_class
from pretrain.method import Method, sgd
from pretrain.moco import encode_shuffled, enqueue, info_nce, new_queue
from pretrain.recipes import Recipe
from pretrain.selfsupervised import SelfSupervised


class MoCo(SelfSupervised):
    """Query and key encoder and a queue of keys; tensors are named as in MoCo's release.

    Args:
        backbone: name of a torchvision ResNet.
        norm: ``shufflebn`` (the key encoder's BatchNorm over shuffled images) or ``eman``.
        proj_dim: dimension of the embeddings.
        queue_size: negatives.
        temperature: of InfoNCE.
        base_momentum: the key encoder's momentum, at all steps.
    """

    queue: Tensor
    queue_ptr: Tensor

    def __init__(
        self,
        backbone: str = "resnet50",
        norm: str = "shufflebn",
        proj_dim: int = 128,
        queue_size: int = 65536,
        temperature: float = 0.2,
        base_momentum: float = 0.999,
    ) -> None:
        super().__init__(norm, base_momentum)
        self.temperature = temperature
        self.encoder_q = torchvision.models.get_model(backbone, norm_layer=norm_class(norm, 2))
        width = self.encoder_q.fc.in_features
        layers = nn.Linear(width, width), nn.ReLU(), nn.Linear(width, proj_dim)
        self.encoder_q.fc = nn.Sequential(*layers)
        self.encoder_k = copy.deepcopy(self.encoder_q).requires_grad_(False)
        self.register_buffer("queue", new_queue(proj_dim, queue_size))
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))
        self.train()

    def networks(self) -> tuple[nn.Module, nn.Module]:
        """The query and the key encoder."""
        return self.encoder_q, self.encoder_k

    def momentum(self, step: int, total_steps: int) -> float:
        """The same at all steps."""
        return self.base_momentum

    def backbone(self) -> nn.Module:
        """Images (b, 3, h, w) -> the query encoder's feature maps (b, c, h / 32, w / 32)."""
        parts = self.encoder_q.named_children()
        return nn.Sequential(*(m for name, m in parts if name not in ("avgpool", "fc")))

    def forward(self, view1: Tensor, view2: Tensor) -> Tensor:
        """InfoNCE of the first view's embeddings with the second's; each view (b, 3, h, w)."""
        query = self.encoder_q(view1)
        with torch.no_grad():
            if self.norm == "eman":
                key = self.encoder_k(view2)
            else:
                (key,) = encode_shuffled(self.encoder_k, view2)
        loss = info_nce(query, key, self.queue.clone(), self.temperature)
        enqueue(self.queue, self.queue_ptr, key)
        self.embedding = query.detach()
        self.branch_losses = {"loss_global": loss.detach()}
        return loss


METHOD = Method(
    name="moco_v2",
    title="MoCo v2",
    recipes=(
        Recipe("shufflebn", 200, 256, 0.03, 1e-4, 0.999, 0, "MoCo's release, README"),
        Recipe(
            *("eman", 200, 256, 0.03, 1e-4, 0.999, 0, "MoCo's release, README; EMAN for norm"),
            unlike="EMAN",
        ),
    ),
    archs={"shufflebn": "MOCOV2", "eman": "MOCOV2_EMAN"},
    defaults={"proj_dim": 128, "queue_size": 65536, "temperature": 0.2},
    model=MoCo,
    views=moco_views,
    optimizer=sgd,
)
