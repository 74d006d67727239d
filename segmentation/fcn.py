"""FCN-16s on a dilated ResNet: MoCo (arXiv 1911.05722), appendix A.5, and BYOL, appendix D.4."""

from typing import Any

import torch
from detectron2.config import configurable
from detectron2.layers import Conv2d, ShapeSpec, get_norm
from detectron2.modeling import (
    META_ARCH_REGISTRY,
    SEM_SEG_HEADS_REGISTRY,
    build_backbone,
    build_sem_seg_head,
)
from detectron2.structures import ImageList
from fvcore.nn import weight_init
from torch import Tensor, nn
from torch.nn import functional as F

CONVS = 2
DILATION = 6


@SEM_SEG_HEADS_REGISTRY.register()
class FCNHead(nn.Sequential):
    """Two 3x3 convolutions of dilation 6 with BN and ReLU, and a 1x1 to the classes.

    Features (n, channels, h, w) to logits (n, classes, h, w). The initialisation is not published:
    ours is Kaiming's, and a small one for the last layer, as Detectron2's box classifier has it.
    """

    @configurable
    def __init__(self, *, channels: int, width: int, classes: int, norm: str) -> None:
        """
        Args:
            channels: of the features.
            width: channels in between.
            classes: of the logits, with the background.
            norm: Detectron2's name of a norm.
        """
        layers = []
        for _ in range(CONVS):
            conv = Conv2d(
                channels,
                width,
                kernel_size=3,
                padding=DILATION,
                dilation=DILATION,
                bias=not norm,
                norm=get_norm(norm, width),
                activation=F.relu,
            )
            weight_init.c2_msra_fill(conv)
            layers.append(conv)
            channels = width
        predictor = Conv2d(channels, classes, kernel_size=1)
        nn.init.normal_(predictor.weight, std=0.01)
        nn.init.zeros_(predictor.bias)
        super().__init__(*layers, predictor)

    @classmethod
    def from_config(cls, cfg: Any, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """The arguments that a Detectron2 config and a backbone's features stand for."""
        settings = cfg.MODEL.SEM_SEG_HEAD
        (feature,) = settings.IN_FEATURES
        return {
            "channels": input_shape[feature].channels,
            "width": settings.CONVS_DIM,
            "classes": settings.NUM_CLASSES,
            "norm": settings.NORM,
        }


@META_ARCH_REGISTRY.register()
class FCN(nn.Module):
    """A backbone, a head, and logits as large as the image.

    Batches are padded, after normalisation, to a multiple of the stride plus 1: then pixel
    (stride·i, stride·j) is where the kernels behind logit (i, j) are centred, and bilinear
    upsampling with aligned corners puts it just there. A crop of 513 needs no padding.
    """

    @configurable
    def __init__(
        self,
        *,
        backbone: nn.Module,
        head: nn.Module,
        feature: str,
        stride: int,
        pixel_mean: list[float],
        pixel_std: list[float],
        ignore_value: int,
        loss_weight: float,
    ) -> None:
        """
        Args:
            backbone: images (n, 3, H, W) to a dict of features.
            head: features to logits.
            feature: the one of the backbone's features that the head takes.
            stride: its output stride.
            pixel_mean: of the channels, in the order of ``INPUT.FORMAT``.
            pixel_std: likewise.
            ignore_value: label of pixels that the loss leaves out.
            loss_weight: factor of the loss.
        """
        super().__init__()
        self.pixel_mean: Tensor
        self.pixel_std: Tensor
        self.backbone, self.head = backbone, head
        self.feature, self.stride = feature, stride
        self.ignore_value, self.loss_weight = ignore_value, loss_weight
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), False)

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """The arguments that a Detectron2 config stands for."""
        backbone = build_backbone(cfg)
        settings = cfg.MODEL.SEM_SEG_HEAD
        (feature,) = settings.IN_FEATURES
        shapes = backbone.output_shape()
        return {
            "backbone": backbone,
            "head": build_sem_seg_head(cfg, shapes),
            "feature": feature,
            "stride": shapes[feature].stride,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "ignore_value": settings.IGNORE_VALUE,
            "loss_weight": settings.LOSS_WEIGHT,
        }

    def forward(self, inputs: list[dict[str, Any]]) -> Any:
        """Losses in training, logits otherwise.

        Args:
            inputs: one dict an image: ``image`` (3, H, W); in training ``sem_seg``, its labels
                (H, W); at test the ``height`` and ``width`` that the logits are wanted in.

        Returns:
            ``{"loss_sem_seg": scalar}`` in training; else for each image
            ``{"sem_seg": logits (classes, height, width)}``.
        """
        device = self.pixel_mean.device
        pixels = [(x["image"].to(device) - self.pixel_mean) / self.pixel_std for x in inputs]
        images = ImageList.from_tensors(pixels)
        logits = self.logits(self._pad(images.tensor, 0.0))
        if self.training:
            labels = ImageList.from_tensors(
                [x["sem_seg"].to(device) for x in inputs], pad_value=self.ignore_value
            )
            return {"loss_sem_seg": self.loss(logits, self._pad(labels.tensor, self.ignore_value))}
        results = []
        for one, (height, width), x in zip(logits, images.image_sizes, inputs, strict=True):
            seen, wanted = one[:, :height, :width], (x.get("height", height), x.get("width", width))
            if wanted != (height, width):
                seen = F.interpolate(seen[None], wanted, mode="bilinear", align_corners=False)[0]
            results.append({"sem_seg": seen})
        return results

    def logits(self, images: Tensor) -> Tensor:
        """Normalised images (n, 3, H, W) to logits (n, classes, H, W); H, W ≡ 1 mod stride."""
        logits = self.head(self.backbone(images)[self.feature])
        # Half precision is too coarse to interpolate and to sum over a quarter of a million pixels.
        return F.interpolate(logits.float(), images.shape[-2:], mode="bilinear", align_corners=True)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross entropy, averaged over the labelled pixels of the batch; 0 if there are none."""
        summed = F.cross_entropy(logits, labels, ignore_index=self.ignore_value, reduction="sum")
        labelled = (labels != self.ignore_value).sum().clamp(min=1)
        return summed / labelled * self.loss_weight

    def _pad(self, batch: Tensor, value: float) -> Tensor:
        """Add to the right and the bottom until both sides are a multiple of the stride plus 1."""
        height, width = batch.shape[-2:]
        return F.pad(
            batch, (0, -(width - 1) % self.stride, 0, -(height - 1) % self.stride), value=value
        )
