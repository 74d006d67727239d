"""FCN-16s and FCN-D8 on a dilated ResNet.

FCN-16s is MoCo's (arXiv 1911.05722, appendix A.5) and BYOL's (appendix D.4). FCN-D8 is
mmsegmentation's, in the variant of DenseCL and mmselfsup 0.x: the files are named in
``det_configs/pascal_voc_R_50_FCN_D8_20k.yaml``.
"""

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
DROPOUT = 0.1  # FCN-D8
AUXILIARY_WEIGHT = 0.4  # FCN-D8


class WithInput(nn.Sequential):
    """Layers whose output follows their input along the channels."""

    def forward(self, features: Tensor) -> Tensor:
        """Features (n, c, h, w) to (n, c + channels of the last layer, h, w)."""
        return torch.cat([features, super().forward(features)], dim=1)


@SEM_SEG_HEADS_REGISTRY.register()
class FCNHead(nn.Sequential):
    """3x3 convolutions with BN and ReLU, by default two of dilation 6, and a 1x1 to the classes.

    Features (n, channels, h, w) to logits (n, classes, h, w). The initialisation is Kaiming's, and
    a small one for the last layer: mmsegmentation's, and ours for FCN-16s, of which none is
    published.
    """

    @configurable
    def __init__(
        self,
        *,
        channels: int,
        width: int,
        classes: int,
        norm: str,
        convs: int = CONVS,
        dilation: int = DILATION,
        concatenate: bool = False,
        dropout: float = 0.0,
    ) -> None:
        """
        Args:
            channels: of the features.
            width: channels in between.
            classes: of the logits, with the background.
            norm: Detectron2's name of a norm.
            convs: number of 3x3 convolutions.
            dilation: of these.
            concatenate: True for one more, over the features and the output of the others.
            dropout: of whole channels, before the last layer.
        """

        def conv(channels: int) -> nn.Module:
            layer = Conv2d(
                channels,
                width,
                kernel_size=3,
                padding=dilation,
                dilation=dilation,
                bias=not norm,
                norm=get_norm(norm, width),
                activation=F.relu,
            )
            weight_init.c2_msra_fill(layer)
            return layer

        layers = [conv(channels if not i else width) for i in range(convs)]
        if concatenate:
            layers = [WithInput(*layers), conv(channels + width)]
        if dropout:
            layers.append(nn.Dropout2d(dropout))
        predictor = Conv2d(width if layers else channels, classes, kernel_size=1)
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


@SEM_SEG_HEADS_REGISTRY.register()
class LinearHead(FCNHead):
    """A 1x1 convolution alone: with a frozen backbone, a linear classifier of its pixels."""

    @classmethod
    def from_config(cls, cfg: Any, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """The arguments that a Detectron2 config and a backbone's features stand for."""
        return super().from_config(cfg, input_shape) | {"convs": 0}


@SEM_SEG_HEADS_REGISTRY.register()
class SmallFCNHead(FCNHead):
    """One 3x3 convolution without dilation: for images that dilation 6 would reach beyond."""

    @classmethod
    def from_config(cls, cfg: Any, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """The arguments that a Detectron2 config and a backbone's features stand for."""
        return super().from_config(cfg, input_shape) | {"convs": 1, "dilation": 1}


@SEM_SEG_HEADS_REGISTRY.register()
class FCND8Head(FCNHead):
    """The head of FCN-D8: no dilation, the features concatenated, and dropout."""

    @classmethod
    def from_config(cls, cfg: Any, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """The arguments that a Detectron2 config and a backbone's features stand for."""
        own = {"dilation": 1, "concatenate": True, "dropout": DROPOUT}
        return super().from_config(cfg, input_shape) | own


@META_ARCH_REGISTRY.register()
class FCN(nn.Module):
    """A backbone, a head, and logits as large as the image.

    Batches are padded, after normalisation, to a multiple of the stride plus 1: then pixel
    (stride·i, stride·j) is where the kernels behind logit (i, j) are centred, and bilinear
    upsampling with aligned corners puts it just there. A crop of 513 needs no padding.
    """

    align_corners = True

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
            :meth:`losses` in training; else for each image
            ``{"sem_seg": logits (classes, height, width)}``.
        """
        device = self.pixel_mean.device
        pixels = [(x["image"].to(device) - self.pixel_mean) / self.pixel_std for x in inputs]
        images = ImageList.from_tensors(pixels)
        padded = self.pad(images.tensor, 0.0)
        features = self.backbone(padded)
        if self.training:
            labels = ImageList.from_tensors(
                [x["sem_seg"].to(device) for x in inputs], pad_value=self.ignore_value
            )
            return self.losses(features, self.pad(labels.tensor, self.ignore_value))
        results = []
        logits = self.upsample(self.head(features[self.feature]), padded)
        for one, (height, width), x in zip(logits, images.image_sizes, inputs, strict=True):
            seen, wanted = one[:, :height, :width], (x.get("height", height), x.get("width", width))
            if wanted != (height, width):
                seen = F.interpolate(seen[None], wanted, mode="bilinear", align_corners=False)[0]
            results.append({"sem_seg": seen})
        return results

    def upsample(self, logits: Tensor, like: Tensor) -> Tensor:
        """Logits (n, classes, h, w) to (n, classes, H, W), the size of images or labels."""
        # Half precision is too coarse to interpolate and to sum over a quarter of a million pixels.
        return F.interpolate(
            logits.float(), like.shape[-2:], mode="bilinear", align_corners=self.align_corners
        )

    def losses(self, features: dict[str, Tensor], labels: Tensor) -> dict[str, Tensor]:
        """``{"loss_sem_seg": scalar}`` of a backbone's features and labels (n, H, W)."""
        logits = self.upsample(self.head(features[self.feature]), labels)
        return {"loss_sem_seg": self.loss(logits, labels)}

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross entropy, averaged over the labelled pixels of the batch; 0 if there are none."""
        summed = F.cross_entropy(logits, labels, ignore_index=self.ignore_value, reduction="sum")
        labelled = (labels != self.ignore_value).sum().clamp(min=1)
        return summed / labelled * self.loss_weight

    def pad(self, batch: Tensor, value: float) -> Tensor:
        """Add to the right and the bottom until both sides are a multiple of the stride plus 1."""
        height, width = batch.shape[-2:]
        return F.pad(
            batch, (0, -(width - 1) % self.stride, 0, -(height - 1) % self.stride), value=value
        )


@META_ARCH_REGISTRY.register()
class FCND8(FCN):
    """FCN-D8: without padding and aligned corners, and in training with a second head on res4."""

    align_corners = False

    @configurable
    def __init__(self, *, auxiliary: nn.Module, **rest: Any) -> None:
        """
        Args:
            auxiliary: res4's features to logits.
            rest: as of :class:`FCN`.
        """
        super().__init__(**rest)
        self.auxiliary = auxiliary

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """The arguments that a Detectron2 config stands for; its RESNETS.OUT_FEATURES has res4."""
        rest, settings = super().from_config(cfg), cfg.MODEL.SEM_SEG_HEAD
        auxiliary = FCNHead(
            channels=rest["backbone"].output_shape()["res4"].channels,
            width=settings.CONVS_DIM // 2,
            classes=settings.NUM_CLASSES,
            norm=settings.NORM,
            convs=1,
            dilation=1,
            dropout=DROPOUT,
        )
        return rest | {"auxiliary": auxiliary}

    def losses(self, features: dict[str, Tensor], labels: Tensor) -> dict[str, Tensor]:
        """As :class:`FCN`'s, and ``loss_auxiliary``, of 0.4 its weight."""
        logits = self.upsample(self.auxiliary(features["res4"]), labels)
        auxiliary = AUXILIARY_WEIGHT * self.loss(logits, labels)
        return super().losses(features, labels) | {"loss_auxiliary": auxiliary}

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross entropy, averaged over all pixels of the batch; to ignored ones it is 0."""
        summed = F.cross_entropy(logits, labels, ignore_index=self.ignore_value, reduction="sum")
        return summed / labels.numel() * self.loss_weight

    def pad(self, batch: Tensor, value: float) -> Tensor:
        """The batch as it is."""
        return batch
