"""Checkpoints of self-supervised ResNets to Detectron2 weights, with no tensor left behind.

``python -m detection.convert IN OUT`` writes a ``.pkl`` that Detectron2 loads into the backbone
of any R-CNN of the same depth: ``{"model": {name: array}, "__author__": ...,
"matching_heuristics": True}``.
"""

import os
import pickle
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch import Tensor

from common import checkpoints
from common.errors import UserError, command
from common.files import atomic_write

AUTHOR = "lewel-transfer"


@dataclass(frozen=True)
class Format:
    """Where a kind of checkpoint keeps its backbone.

    Attributes:
        name: what the kind is called.
        prefix: what precedes torchvision's names of the backbone's tensors.
    """

    name: str
    prefix: str


# The first whose prefix precedes ``conv1.weight`` is the checkpoint's.
FORMATS = (
    Format("LEWEL", "module.online_net.backbone."),
    Format("LEWEL without DDP", "online_net.backbone."),
    Format("extracted backbone", ""),
)

# arch of the LEWEL release and of ours -> method, norm
ARCHS = {"LEWELB_EMAN": ("LEWEL_B", "eman"), "LEWELB": ("LEWEL_B", "syncbn")}
ARCHITECTURES = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "wide_resnet50_2",
    "wide_resnet101_2",
)


@dataclass(frozen=True)
class Backbone:
    """A ResNet's tensors under torchvision's names, and what its checkpoint tells of it.

    Attributes:
        tensors: every tensor of the backbone, BatchNorm counters too.
        architecture: torchvision's name of the ResNet.
        format: name of the checkpoint's format.
        method: pre-training method, "" where the checkpoint does not tell.
        norm: norm of the pre-training, "" likewise.
        epochs: epochs of pre-training, None likewise.
        ignored: names of the checkpoint's other tensors.
    """

    tensors: dict[str, Tensor]
    architecture: str
    format: str
    method: str
    norm: str
    epochs: int | None
    ignored: tuple[str, ...]


def depth_of(architecture: str) -> int:
    """50 for resnet50."""
    return int(re.findall(r"resnet(\d+)", architecture)[0])


def read_backbone(checkpoint: str | os.PathLike[str]) -> Backbone:
    """Read and check the backbone of a checkpoint; runs no code of the file's.

    Raises:
        UserError: if the file cannot be read, has no ResNet, or not every tensor of it.
    """
    loaded = checkpoints.load(checkpoint)
    if not isinstance(loaded, Mapping):
        raise UserError(f"{checkpoint} holds a {type(loaded).__name__}, not a checkpoint.")
    container = loaded.get("state_dict", loaded)
    state = (
        {str(k): v for k, v in container.items() if isinstance(v, Tensor)}
        if isinstance(container, Mapping)
        else {}
    )
    form = next((f for f in FORMATS if f"{f.prefix}conv1.weight" in state), None)
    if form is None:
        raise UserError(f"{checkpoint} is not a LEWEL checkpoint or a ResNet: {_prefixes(state)}.")
    inside = {k: v for k, v in state.items() if k.startswith(form.prefix)}
    tensors = {k.removeprefix(form.prefix): v for k, v in inside.items()}
    heads = {k for k in tensors if not re.match(r"(conv1|bn1|layer\d)\.", k)}
    tensors = {k: v for k, v in tensors.items() if k not in heads}
    method, norm = ARCHS.get(str(loaded.get("arch")), ("", ""))
    epochs = loaded.get("epoch") if method else None
    ignored = sorted({k for k in state if k not in inside} | {form.prefix + k for k in heads})
    return Backbone(
        tensors,
        _architecture(tensors, checkpoint),
        form.name,
        method,
        norm,
        epochs if isinstance(epochs, int) else None,
        tuple(ignored),
    )


def _prefixes(state: Mapping[str, Tensor]) -> str:
    if not state:
        return "it holds no tensors"
    found = sorted({".".join(k.split(".")[:2]) for k in state})
    return f"its tensors are named {', '.join(found[:6])}{', ...' if len(found) > 6 else ''}"


def _architecture(tensors: Mapping[str, Tensor], checkpoint: str | os.PathLike[str]) -> str:
    """The torchvision ResNet whose backbone has exactly these names and shapes."""
    shapes = {k: tuple(v.shape) for k, v in tensors.items()}
    nearest: tuple[int, str, list[str]] | None = None
    for name in ARCHITECTURES:
        wanted = resnet_shapes(name)
        wrong = sorted(
            k
            for k in wanted.keys() | shapes.keys()
            if wanted.get(k) != shapes.get(k) and not _optional(k, shapes)
        )
        if not wrong:
            return name
        if nearest is None or len(wrong) < nearest[0]:
            nearest = len(wrong), name, wrong
    assert nearest is not None
    count, name, wrong = nearest
    example = wrong[0]
    raise UserError(
        f"{checkpoint} is not a whole ResNet: compared with {name}, {count} tensors are missing, "
        f"unknown or of another shape, such as {example} ({shapes.get(example, 'missing')}, "
        f"expected {resnet_shapes(name).get(example, 'none')}); nothing was written."
    )


def _optional(name: str, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Old checkpoints have no BatchNorm counters, which nothing here reads."""
    return name.endswith("num_batches_tracked") and name not in shapes


def resnet_shapes(architecture: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors of a torchvision ResNet but its fc."""
    with torch.device("meta"):
        state = torchvision.models.get_model(architecture).state_dict()
    return {k: tuple(v.shape) for k, v in state.items() if not k.startswith("fc.")}


def detectron2_name(name: str) -> str:
    """Detectron2's name of a torchvision ResNet's tensor.

    >>> detectron2_name("layer1.0.downsample.1.running_var")
    'res2.0.shortcut.norm.running_var'
    """
    stage, *rest = name.split(".")
    if stage in ("conv1", "bn1"):
        return ".".join(["stem", "conv1", *(["norm"] if stage == "bn1" else []), *rest])
    block, layer, *rest = rest
    if layer == "downsample":
        index, *rest = rest
        words = ["shortcut", *(["norm"] if index == "1" else [])]
    else:
        kind, number = layer[:-1], layer[-1]
        words = [f"conv{number}", *(["norm"] if kind == "bn" else [])]
    return ".".join([f"res{int(stage.removeprefix('layer')) + 1}", block, *words, *rest])


def to_detectron2(backbone: Backbone) -> dict[str, np.ndarray]:
    """Detectron2's names and arrays of every tensor of ``backbone``; floats as float32."""
    arrays = {
        detectron2_name(k): (v.float() if v.is_floating_point() else v).contiguous().numpy()
        for k, v in backbone.tensors.items()
    }
    if len(arrays) != len(backbone.tensors):
        raise AssertionError("two tensors of the backbone took the same place")
    return arrays


def write(backbone: Backbone, output: str | os.PathLike[str]) -> None:
    """Write ``backbone`` as Detectron2 weights, atomically."""
    model = {"model": to_detectron2(backbone), "__author__": AUTHOR, "matching_heuristics": True}
    with atomic_write(output) as file:
        pickle.dump(model, file)


def convert(checkpoint: str | os.PathLike[str], output: str | os.PathLike[str]) -> Backbone:
    """Convert a checkpoint to a Detectron2 ``.pkl``.

    Args:
        checkpoint: a LEWEL checkpoint of ours or of the release, or an extracted backbone.
        output: where to write.

    Returns:
        What was found.

    Raises:
        UserError: unless every tensor of the backbone is there with its shape; nothing is
            written then.
    """
    backbone = read_backbone(checkpoint)
    write(backbone, output)
    return backbone


@command
def main(arguments: list[str] | None = None) -> None:
    """``python -m detection.convert IN OUT``."""
    words = sys.argv[1:] if arguments is None else arguments
    if len(words) != 2 or words[0].startswith("-"):
        raise UserError("usage: python -m detection.convert CHECKPOINT OUTPUT.pkl")
    backbone = convert(Path(words[0]), Path(words[1]))
    print(
        f"{backbone.format}, {backbone.architecture}: {len(backbone.tensors)} of "
        f"{len(backbone.tensors)} backbone tensors written to {words[1]}; "
        f"{len(backbone.ignored)} others ignored (necks, predictors, target)"
    )


if __name__ == "__main__":
    main()
