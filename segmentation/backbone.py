"""Dilation in the last stages of a ResNet of any depth."""

from typing import Any

from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, ResNet
from detectron2.modeling.backbone import build_resnet_backbone
from torch import nn

D8 = {"res4": 2, "res5": 4}  # dilations where the output stride is 8


@BACKBONE_REGISTRY.register()
def build_dilated_resnet_backbone(cfg: Any, input_shape: ShapeSpec) -> ResNet:
    """Detectron2's ResNet with dilation in place of stride, by ``RESNETS.RES5_DILATION``.

    With 2, every 3x3 convolution of res5 has dilation 2, and its stride goes: Detectron2's own rule
    from 50 layers on, here for 18 and 34 too. With 4, which Detectron2 does not know, the strides
    of res4 and res5 go; their 3x3 convolutions have dilations 2 and 4, in the first block half as
    much (mmsegmentation's contract_dilation: mmseg/models/utils/res_layer.py).
    """
    dilation = cfg.MODEL.RESNETS.RES5_DILATION
    if dilation == 1 or (dilation == 2 and cfg.MODEL.RESNETS.DEPTH >= 50):
        return build_resnet_backbone(cfg, input_shape)
    plain = cfg.clone()
    plain.defrost()
    plain.MODEL.RESNETS.RES5_DILATION = 1
    resnet = build_resnet_backbone(plain, input_shape)
    halved = 1
    for name, wanted in (D8 if dilation == 4 else {"res5": dilation}).items():
        for number, block in enumerate(getattr(resnet, name)):
            contracted = dilation == 4 and number == 0
            _dilate(block, wanted // 2 if contracted else wanted)
        halved *= 2
        resnet._out_feature_strides[name] //= halved
    return resnet


def _dilate(block: nn.Module, dilation: int) -> None:
    for module in block.modules():
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
            if module.kernel_size == (3, 3):
                module.dilation = module.padding = (dilation, dilation)
