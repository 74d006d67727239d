"""Detectron2's ``.pkl`` weights: written of checkpoints of self-supervised ResNets, and read.

``python -m detection.convert IN OUT [--target]`` writes a file that Detectron2 loads into the
backbone of any R-CNN of the same depth, with no tensor left behind: ``{"model": {name: array},
"__author__": ..., "matching_heuristics": True}``, and beside them what the checkpoint tells of its
pre-training.
"""

import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from torch import Tensor

from common.backbones import Backbone, Which, read_backbone
from common.errors import UserError, command
from common.files import atomic_write, check_output
from common.locks import locked
from common.resnets import architecture_of

AUTHOR = "lewel-transfer"
CAFFE2 = "Caffe2"  # whom Detectron2 takes for the author of weights that name none
TORCHVISION = "torchvision"  # of Detectron2's tools/convert-torchvision-to-d2.py

# What a pickled NumPy array names, in NumPy 1's and in NumPy 2's words, and Python 2's strings.
_ALLOWED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy._core.numeric", "_frombuffer"),
    ("numpy.core.numeric", "_frombuffer"),
    ("collections", "OrderedDict"),
    ("_codecs", "encode"),
}


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
    return {detectron2_name(name): _array(value) for name, value in backbone.tensors.items()}


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


def converted(checkpoint: str, digest: str, folder: Path) -> Path:
    """Detectron2 weights of a checkpoint, made once for all jobs that start from it.

    Args:
        checkpoint: the file.
        digest: its SHA-256, which names the result.
        folder: of such results; made if need be.

    Raises:
        UserError: as :func:`convert`.
    """
    path = folder / f"{digest[:16]}.pkl"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(path.with_name(f".{path.name}.lock")):
            if not path.exists():
                convert(checkpoint, path)
    except OSError as error:
        raise UserError(
            f"cannot write the converted weights {path}: {error.strerror or error}; choose "
            "another --output-dir."
        ) from error
    return path


@dataclass(frozen=True)
class Pickled:
    """Weights in Detectron2's format.

    Attributes:
        author: who wrote them.
        architecture: torchvision's name of the ResNet that they are; "" for anything else.
        method: pre-training method; "" where they do not tell.
        norm: norm of the pre-training, "" likewise.
        epochs: epochs of pre-training, None likewise.
        network: ``online`` or ``target``, "" likewise.
        recipe: differences of a pre-training of ours from the run with the published figures.
        signed: False if they do not name their author, whom Detectron2 guesses then.
    """

    author: str
    architecture: str
    method: str = ""
    norm: str = ""
    epochs: int | None = None
    network: str = ""
    recipe: str = ""
    signed: bool = True


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed")
        return super().find_class(module, name)


def read_weights(path: Path) -> Pickled:
    """Read what weights in Detectron2's format are, without running code of the file's.

    Raises:
        UserError: if the file is no Detectron2 weights, or a ResNet of ours is not whole.
    """
    try:
        with path.open("rb") as file:
            data = _ArrayUnpickler(file, encoding="latin1").load()
    except Exception as error:  # a file cut short raises almost anything
        reason = " ".join(str(error).split())
        raise UserError(
            f"{path} is not readable as Detectron2 weights ({reason}); copy or convert it again."
        ) from error
    author, model = _contents(data)
    signed = isinstance(data, dict) and "__author__" in data
    if not is_state(model):
        raise UserError(
            f"{path} has a model but no __author__, without which Detectron2 does not find it; "
            "name one in the file, or convert a checkpoint again."
            if isinstance(data, dict) and is_state(data.get("model")) and not signed
            else f"{path} holds no Detectron2 weights; convert a checkpoint again."
        )
    if author != AUTHOR:
        shapes = _backbone_shapes(author, model)
        return Pickled(author, architecture_of(shapes, detectron2_name), signed=signed)
    shapes = {name: tuple(array.shape) for name, array in model.items()}
    architecture = architecture_of(shapes, detectron2_name)
    if not architecture:
        raise UserError(f"{path} is not a whole ResNet; convert its checkpoint again.")
    fields = ("method", "norm", "epochs", "network", "recipe")
    return Pickled(author, architecture, **{key: data[key] for key in fields if key in data})


def is_state(model: object) -> bool:
    """True for what Detectron2 can load: arrays or tensors by name, and nothing else."""
    return (
        isinstance(model, Mapping)
        and len(model) > 0
        and all(isinstance(value, np.ndarray | Tensor) for value in model.values())
    )


def _contents(data: Any) -> tuple[str, Any]:
    """Author and model, as Detectron2's ``DetectionCheckpointer`` finds them."""
    if not isinstance(data, dict):
        return "", None
    if "model" in data and "__author__" in data:
        return str(data["__author__"]), data["model"]
    blobs = data.get("blobs", data)  # Detectron's, of Caffe2
    if not isinstance(blobs, dict):
        return "", None
    return CAFFE2, {k: v for k, v in blobs.items() if not str(k).endswith("_momentum")}


def _backbone_shapes(author: str, model: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Shapes of what strangers named like a ResNet, but for what Detectron2 leaves out: the fc,
    and the bias of MSRA's first convolution."""
    from detectron2.checkpoint.c2_model_loading import convert_basic_c2_names

    names = convert_basic_c2_names([*model]) if author == CAFFE2 else [*model]
    return {
        name: tuple(array.shape)
        for name, array in zip(names, model.values(), strict=True)
        if name.startswith(("stem.", "res"))
        and not name.startswith(("stem.fc.", "stem.conv1.bias"))
    }


def report(backbone: Backbone) -> list[str]:
    """The tensors of a checkpoint that were used, ignored and missing; one line each."""
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


@dataclass(frozen=True)
class Options:
    """Convert a checkpoint of a self-supervised ResNet to Detectron2 weights.

    Attributes:
        checkpoint: a checkpoint of any known format.
        output: the .pkl to write.
        online: convert the network that gradients trained; the default.
        target: convert the network that followed it by EMA.
    """

    checkpoint: tyro.conf.Positional[Path]
    output: tyro.conf.Positional[Path]
    online: bool = False
    target: bool = False


@command
def main(arguments: list[str] | None = None) -> None:
    """``python -m detection.convert IN OUT [--target]``."""
    style = (tyro.conf.FlagCreatePairsOff,)
    options = tyro.cli(Options, prog="python -m detection.convert", args=arguments, config=style)
    if options.online and options.target:
        raise UserError("--online and --target are two networks; give one of them.")
    backbone = convert(options.checkpoint, options.output, "target" if options.target else "online")
    print("\n".join(report(backbone)), f"written to {options.output}")


if __name__ == "__main__":
    main()
