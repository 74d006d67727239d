"""Checkpoints and small detectors that several tests here start from."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from detectron2.config import get_cfg
from torch import Tensor, nn

from pretrain.lewel import LEWEL

CONFIGS = Path(__file__).parents[2] / "det_configs"
LEWEL_PREFIX = "module.online_net.backbone."


def config(name: str, *overrides: Any) -> Any:
    """A config of det_configs/ on the CPU, without our own reader."""
    cfg = get_cfg()
    cfg.merge_from_file(str(CONFIGS / f"{name}.yaml"))
    cfg.MODEL.DEVICE = "cpu"
    cfg.merge_from_list(list(overrides))
    return cfg


def shape_state(architecture: str) -> dict[str, Tensor]:
    """A ResNet's tensors without its fc, all zeros, of which a file stores one number each."""
    with torch.device("meta"):
        state = torchvision.models.get_model(architecture).state_dict()
    return {
        name: torch.zeros((), dtype=tensor.dtype).expand(tensor.shape)
        for name, tensor in state.items()
        if not name.startswith("fc.")
    }


def caffe2_name(name: str) -> str:
    """Name of a tensor of torchvision's ResNet in MSRA's Caffe2 weights.

    >>> caffe2_name("layer1.0.downsample.1.running_var")
    'res2_0_branch1_bn_running_var'
    """
    norm = {"weight": "bn_gamma", "bias": "bn_beta"}
    stage, *rest = name.split(".")
    if stage in ("conv1", "bn1"):
        return "conv1_w" if stage == "conv1" else f"res_conv1_{norm.get(rest[0], f'bn_{rest[0]}')}"
    block, layer, *rest = rest
    branch = "branch1" if layer == "downsample" else f"branch2{' abc'[int(layer[-1])]}"
    last = (
        "w" if layer.startswith("conv") or rest[0] == "0" else norm.get(rest[-1], f"bn_{rest[-1]}")
    )
    return f"res{int(stage[-1]) + 1}_{block}_{branch}_{last}"


def torchvision_name(name: str) -> str:
    """Torchvision's name as Detectron2's own tools/convert-torchvision-to-d2.py changes it."""
    name = name if "layer" in name else f"stem.{name}"
    for stage in (1, 2, 3, 4):
        name = name.replace(f"layer{stage}", f"res{stage + 1}")
    for number in (1, 2, 3):
        name = name.replace(f"bn{number}", f"conv{number}.norm")
    return name.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")


def random_lewel(architecture: str = "resnet50") -> LEWEL:
    """LEWEL with random weights and statistics, different in the online and the target network."""
    model = LEWEL(architecture, proj_dim=16, hidden_dim=32)
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, generator=generator)
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            tensors = (module.weight, module.bias, module.running_mean, module.running_var)
            ranges = ((0.2, 0.8), (-0.3, 0.3), (-0.3, 0.3), (0.5, 2.0))
            for tensor, (low, high) in zip(tensors, ranges, strict=True):
                assert tensor is not None and module.num_batches_tracked is not None
                nn.init.uniform_(tensor, low, high, generator=generator)
                module.num_batches_tracked.fill_(1234)
    return model


def save_lewel(path: Path, state: dict[str, Tensor], prefix: str = "module.") -> Path:
    """A checkpoint of 200 epochs as pre-training leaves it; ``best_acc1`` as in the release."""
    checkpoint = {
        "epoch": 200,
        "arch": "LEWELB_EMAN",
        "state_dict": {prefix + name: tensor for name, tensor in state.items()},
        "best_acc1": np.float64(0.0),
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.0}]},
        "scaler": {},
    }
    torch.save(checkpoint, path)
    return path


def torchvision_resnet(architecture: str, state: dict[str, Tensor], prefix: str) -> nn.Module:
    """torchvision's ResNet with the tensors behind ``prefix``, in eval mode."""
    resnet = torchvision.models.get_model(architecture)
    inside = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    resnet.fc = nn.Identity()
    resnet.load_state_dict(inside)
    return resnet.eval()


def assert_equal_to_the_bit(here: Path, there: Path) -> None:
    """Compare the weights, momenta and scores of two finished runs."""
    scores = [json.loads((folder / "metrics.json").read_text()) for folder in (here, there)]
    names = [name for name in scores[0] if "AP" in name or "IoU" in name]
    assert names and all(scores[0][name] == scores[1][name] for name in names)
    states = [torch.load(f / "model_final.pth", weights_only=False) for f in (here, there)]
    for name, tensor in states[0]["model"].items():
        assert torch.equal(tensor, states[1]["model"][name]), name
    momenta = [state["trainer"]["optimizer"]["state"] for state in states]
    assert momenta[0].keys() == momenta[1].keys() and len(momenta[0]) > 40
    for key, value in momenta[0].items():
        assert torch.equal(value["momentum_buffer"], momenta[1][key]["momentum_buffer"])


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Messages that were logged as a warning or worse."""
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
