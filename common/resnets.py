"""torchvision's ResNets: their names, and the shapes of their tensors."""

import functools
import re
from collections.abc import Callable, Mapping
from typing import TypeAlias

# Shapes of tensors by name; anything else in the place of a tensor is told by its class.
Shapes: TypeAlias = Mapping[str, tuple[int, ...] | str]

ARCHITECTURES = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "wide_resnet50_2",
    "wide_resnet101_2",
)
COUNTER = "num_batches_tracked"  # BatchNorm's, which nothing reads and old checkpoints lack


def depth_of(architecture: str) -> int:
    """50 for resnet50."""
    return int(re.findall(r"resnet(\d+)", architecture)[0])


def width_of(architecture: str) -> int:
    """Channels of the first stage's 3x3 convolutions: 64, or of a wide one 128."""
    return 128 if architecture.startswith("wide") else 64


@functools.cache
def resnet_shapes(architecture: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors of a torchvision ResNet but its fc; not to be changed."""
    import torch
    import torchvision

    with torch.device("meta"):
        state = torchvision.models.get_model(architecture).state_dict()
    return {k: tuple(v.shape) for k, v in state.items() if not k.startswith("fc.")}


def architecture_of(shapes: Shapes, rename: Callable[[str], str] = str) -> str:
    """The ResNet that has exactly these tensors, BatchNorm's counters aside; "" if none has.

    ``rename`` turns torchvision's names into theirs.
    """
    for name in ARCHITECTURES:
        if not differing({rename(k): v for k, v in resnet_shapes(name).items()}, shapes):
            return name
    return ""


def differing(wanted: Shapes, shapes: Shapes) -> list[str]:
    """Names of tensors that are missing, unknown, or of another shape."""
    return sorted(
        k
        for k in wanted.keys() | shapes.keys()
        if wanted.get(k) != shapes.get(k) and not (k.endswith(COUNTER) and k not in shapes)
    )
