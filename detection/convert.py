"""Checkpoints of self-supervised ResNets to Detectron2 weights, with no tensor left behind.

``python -m detection.convert IN OUT [--target]`` writes a ``.pkl`` that Detectron2 loads into the
backbone of any R-CNN of the same depth: ``{"model": {name: array}, "__author__": ...,
"matching_heuristics": True}``, and beside them what the checkpoint tells of its pre-training.
"""

import os
import pickle
import sys
from pathlib import Path

import numpy as np
from torch import Tensor

from common.backbones import Backbone, Which, read_backbone
from common.errors import UserError, command
from common.files import atomic_write, check_output

AUTHOR = "lewel-transfer"
USAGE = "usage: python -m detection.convert CHECKPOINT OUTPUT.pkl [--online | --target]"


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
    arrays = {detectron2_name(name): _array(value) for name, value in backbone.tensors.items()}
    if len(arrays) != len(backbone.tensors):
        raise AssertionError("two tensors of the backbone took the same place")
    return arrays


def _array(tensor: Tensor) -> np.ndarray:
    kept = tensor.float() if tensor.is_floating_point() else tensor
    return kept.detach().contiguous().numpy()


def write(backbone: Backbone, output: str | os.PathLike[str]) -> None:
    """Write ``backbone`` as Detectron2 weights, atomically, and what is known of its origin."""
    content = {
        "model": to_detectron2(backbone),
        "__author__": AUTHOR,
        "matching_heuristics": True,
        "method": backbone.method,
        "norm": backbone.norm,
        "epochs": backbone.epochs,
        "recipe": backbone.recipe,
        "network": backbone.which,
    }
    with atomic_write(output) as file:
        pickle.dump(content, file)


def convert(
    checkpoint: str | os.PathLike[str], output: str | os.PathLike[str], which: Which = "online"
) -> Backbone:
    """Convert a checkpoint to a Detectron2 ``.pkl``.

    Args:
        checkpoint: a file of any format of :data:`common.formats.FORMATS`.
        output: where to write.
        which: the network that gradients trained, or the target that followed it by EMA.

    Returns:
        What was found.

    Raises:
        UserError: unless every tensor of the backbone is there with its shape, and the output can
            be written; nothing is written then.
    """
    check_output(Path(output))
    backbone = read_backbone(checkpoint, which)
    try:
        write(backbone, output)
    except OSError as error:
        raise UserError(
            f"{output} cannot be written ({error.strerror}); choose another place."
        ) from error
    return backbone


def report(backbone: Backbone) -> list[str]:
    """What was used of a checkpoint, what was not, and what it lacks; one line each."""
    method = f"method {backbone.method}" if backbone.method else "method not known"
    found, missing = len(backbone.tensors), len(backbone.missing)
    lines = [
        f"{backbone.format}, {method}: {backbone.architecture}, {backbone.which} network",
        f"  used     {found:5}  {backbone.prefix or 'names without a prefix'}",
        *(f"  ignored  {count:5}  {owner}" for owner, count in backbone.ignored_groups.items()),
    ]
    if missing:
        lines.append(f"  missing  {missing:5}  BatchNorm counters, which nothing reads")
    return [*lines, f"{found} of {found + missing} backbone tensors"]


@command
def main(arguments: list[str] | None = None) -> None:
    """``python -m detection.convert IN OUT [--target]``."""
    words = sys.argv[1:] if arguments is None else arguments
    if "--help" in words or "-h" in words:
        print(USAGE)
        return
    options = [word for word in words if word.startswith("-")]
    paths = [word for word in words if word not in options]
    if len(paths) != 2 or len(options) > 1 or not {*options} <= {"--online", "--target"}:
        raise UserError(USAGE)
    which: Which = "target" if "--target" in options else "online"
    backbone = convert(Path(paths[0]), Path(paths[1]), which)
    print("\n".join(report(backbone)), f"written to {paths[1]}")


if __name__ == "__main__":
    main()
