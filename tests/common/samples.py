"""Checkpoints of every known format, and what each should be taken for."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from tests.common.writers import (
    State,
    at,
    barlow_twins,
    byol,
    densecl,
    dino,
    lewel,
    lewel_m,
    lightly,
    lightly_pair,
    mmselfsup,
    mmselfsup_densecl,
    moco,
    moco_v3,
    pixpro,
    pycontrast,
    simsiam,
    solo_learn,
    swav,
    trained,
    vicreg,
    vissl,
    with_fc,
)

Writer = Callable[[State, State], Any]


@dataclass(frozen=True)
class Sample:
    """A checkpoint, and what it should be taken for."""

    write: Writer
    name: str
    method: str = ""
    epochs: int | None = None
    has_target: bool = False
    safetensors: bool = False


SAMPLES = {
    "LEWEL": Sample(lewel, "LEWEL", "LEWEL_B", 200, True),
    "LEWEL, no DDP": Sample(lambda o, t: lewel(o, t, ""), "LEWEL", "LEWEL_B", 200, True),
    "LEWEL, state_dict": Sample(
        lambda o, t: lewel(o, t)["state_dict"], "LEWEL", "LEWEL_B", None, True
    ),
    "LEWEL_M": Sample(lewel_m, "LEWEL_M", "LEWEL_M (re-implementation)", 200, True),
    "EMAN": Sample(byol, "BYOL (EMAN)", "BYOL", 200, True),
    "BYOL, ours": Sample(
        lambda o, t: byol(o, t, "neck.proj"), "BYOL (EMAN)", "BYOL", 200, True
    ),
    "online_net alone": Sample(
        lambda o, _: trained(at("module.online_net.backbone.", o)),
        "LEWEL or LEWEL_M or BYOL (EMAN)",
    ),
    "MoCo v1": Sample(
        lambda o, t: moco(o, t, "fc.weight fc.bias"), "MoCo v1", "MoCo v1", 200, True
    ),
    "MoCo v2": Sample(
        lambda o, t: moco(o, t, "fc.0.weight fc.0.bias fc.2.weight fc.2.bias"),
        "MoCo v2", "MoCo v2", 200, True,
    ),
    "MoCo-EMAN": Sample(
        lambda o, t: moco(o, t, "fc.0.weight fc.0.bias fc.2.weight fc.2.bias")
        | {"arch": "MoCoEMAN"},
        "MoCo v2", "MoCo-EMAN", 200, True,
    ),
    "MoCo, no fc": Sample(
        lambda o, t: moco(o, t, ""), "MoCo v1 or MoCo v2", has_target=True
    ),
    "MoCo v3": Sample(moco_v3, "MoCo v3", "MoCo v3", 1000, True),
    "SimSiam": Sample(simsiam, "SimSiam", "SimSiam", 100),
    "encoder in state_dict": Sample(
        lambda o, _: trained(at("module.encoder.", o)), "SimSiam or solo-learn"
    ),
    "PixPro": Sample(pixpro, "PixPro", "PixPro", 100, True),
    "InfoMin": Sample(
        lambda o, t: pycontrast(o, t, method="InfoMin"), "PyContrast", "InfoMin", 200, True
    ),
    "PyContrast, no opt": Sample(pycontrast, "PyContrast", has_target=True),
    "encoder in model": Sample(
        lambda o, _: {"model": at("module.encoder.", o)}, "PixPro or PyContrast"
    ),
    "SwAV": Sample(swav, "SwAV", "SwAV"),
    "SwAV, training": Sample(
        lambda o, t: trained(swav(o, t), 400), "SwAV", "SwAV", 400
    ),
    "DeepCluster v2": Sample(  # SwAV's code, and not SwAV
        lambda o, t: swav(o, t, "prototypes.prototypes0"), "torchvision names"
    ),
    "Barlow Twins": Sample(barlow_twins, "Barlow Twins", "Barlow Twins", 1000),
    "VICReg": Sample(vicreg, "VICReg", "VICReg", 1000),
    "Barlow Twins' and VICReg's resnet50.pth": Sample(lambda o, _: o, "torchvision names"),
    "backbone in model": Sample(
        lambda o, _: {"model": at("module.backbone.", o)}, "Barlow Twins or VICReg"
    ),
    "DINO": Sample(dino, "DINO", "DINO", 800, True),
    "DINO, no DDP": Sample(lambda o, t: dino(o, t, ""), "DINO", "DINO", 800, True),
    "DenseCL": Sample(densecl, "DenseCL", "DenseCL", 200, True),
    "DenseCL, MMSelfSup": Sample(mmselfsup_densecl, "DenseCL", "DenseCL", 200, True),
    "MMSelfSup MoCo": Sample(
        lambda o, t: mmselfsup(o, t, "encoder_k"), "OpenMMLab", has_target=True
    ),
    "MMSelfSup BYOL": Sample(
        lambda o, t: mmselfsup(o, t, "target_net"), "OpenMMLab", has_target=True
    ),
    "OpenMMLab, extracted": Sample(
        lambda o, _: {"state_dict": o, "author": "OpenSelfSup"}, "torchvision names"
    ),
    "solo-learn": Sample(
        lambda o, t: solo_learn(o, t, "backbone"), "solo-learn", has_target=True
    ),
    "solo-learn before 1.0.3": Sample(
        lambda o, t: solo_learn(o, t, "encoder"), "solo-learn", has_target=True
    ),
    "lightly": Sample(lightly, "lightly", has_target=True),
    "lightly, named": Sample(lambda o, t: lightly(o, t, False), "lightly", has_target=True),
    "lightly, pair": Sample(lightly_pair, "lightly (student, teacher)", has_target=True),
    "VISSL": Sample(vissl, "VISSL"),
    "torchvision": Sample(with_fc, "torchvision names"),
    "torchvision, training": Sample(
        lambda o, t: {
            "model": with_fc(o, t), "epoch": 89, "args": argparse.Namespace(model="resnet50")
        },
        "torchvision names",
    ),
    "ImageNet example": Sample(
        lambda o, t: trained(at("module.", with_fc(o, t)), 90, best_acc1=torch.tensor(76.1)),
        "torchvision names",
    ),
    "timm": Sample(with_fc, "torchvision names", safetensors=True),
}  # fmt: skip
