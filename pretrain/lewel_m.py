"""LEWEL_M, LEWEL's neck on MoCo v2: Huang et al., CVPR 2022 (arXiv 2203.14898).

``pretrain/methods/lewel_m.py`` tells the paper from our choices.
"""

import copy

import torch
from torch import Tensor

from pretrain.lewel import Encoder
from pretrain.moco import Contrastive, enqueue, info_nce, new_queue


class LEWELM(Contrastive):
    """LEWEL's encoder twice, and a queue for each branch.

    ``norm`` is ``eman`` or ``shufflebn``; all else as for :class:`pretrain.lewel.LEWEL` and
    :class:`pretrain.moco.MoCo`.
    """

    queue: Tensor
    queue_ptr: Tensor
    queue_obj: Tensor
    queue_obj_ptr: Tensor

    def __init__(
        self,
        backbone: str = "resnet50",
        norm: str = "eman",
        proj_dim: int = 128,
        hidden_dim: int = 2048,
        neck_layers: int = 2,
        heads: int = 4,
        scale: float = 1.0,
        loss_weight: float = 0.5,
        queue_size: int = 65536,
        temperature: float = 0.2,
        base_momentum: float = 0.999,
    ) -> None:
        super().__init__(norm, base_momentum)
        self.loss_weight, self.temperature = loss_weight, temperature
        self.online_net = Encoder(backbone, norm, hidden_dim, proj_dim, neck_layers, heads, scale)
        self.target_net = copy.deepcopy(self.online_net).requires_grad_(False)
        for name in ("queue", "queue_obj"):
            self.register_buffer(name, new_queue(proj_dim, queue_size))
            self.register_buffer(f"{name}_ptr", torch.zeros(1, dtype=torch.long))
        self.train()

    def networks(self) -> tuple[Encoder, Encoder]:
        return self.online_net, self.target_net

    def forward(self, view1: Tensor, view2: Tensor) -> Tensor:
        """InfoNCE of both branches, the first view with the second; each view (b, 3, h, w)."""
        z, aligned = self.online_net(view1)
        key, aligned_key = self.keys(view2)
        z, key = z.flatten(1), key.flatten(1)
        global_loss = info_nce(z, key, self.queue.clone(), self.temperature)
        aligned_loss = info_nce(
            aligned.transpose(1, 2).flatten(0, 1),
            aligned_key.transpose(1, 2).flatten(0, 1),
            self.queue_obj.clone(),
            self.temperature,
        )
        enqueue(self.queue, self.queue_ptr, key)
        enqueue(self.queue_obj, self.queue_obj_ptr, _one_of_each(aligned_key))
        self.embedding = z.detach()
        self.branch_losses = {
            "loss_global": global_loss.detach(),
            "loss_aligned": aligned_loss.detach(),
        }
        return self.loss_weight * global_loss + (1 - self.loss_weight) * aligned_loss


def _one_of_each(aligned: Tensor) -> Tensor:
    """One random vector of each image: (b, dim, n) -> (b, dim)."""
    images = torch.arange(len(aligned))
    return aligned[images, :, torch.randint(aligned.shape[2], (len(aligned),))]
