"""Dilation in the last stage of a ResNet of any depth."""

from typing import Any

from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, ResNet
from detectron2.modeling.backbone import build_resnet_backbone
from torch import nn


@BACKBONE_REGISTRY.register()
def build_dilated_resnet_backbone(cfg: Any, input_shape: ShapeSpec) -> ResNet:
    """Detectron2's ResNet, with ``RESNETS.RES5_DILATION`` 2 for 18 and 34 layers too.

    Detectron2's own builder has it from 50 layers on, by the same rule: every 3x3 convolution of
    res5 has dilation 2, and its stride goes.
    """
    if cfg.MODEL.RESNETS.DEPTH >= 50 or cfg.MODEL.RESNETS.RES5_DILATION == 1:
        return build_resnet_backbone(cfg, input_shape)
    plain = cfg.clone()
    plain.defrost()
    plain.MODEL.RESNETS.RES5_DILATION = 1
    resnet = build_resnet_backbone(plain, input_shape)
    for module in resnet.res5.modules():
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
            if module.kernel_size == (3, 3):
                module.dilation = module.padding = (2, 2)
    resnet._out_feature_strides["res5"] = resnet._out_feature_strides["res5"] // 2
    return resnet
