"""Detectron2's ``.pkl`` weights: written of checkpoints of self-supervised ResNets, and read.

``python -m detection.convert IN OUT [--target]`` writes a file that Detectron2 loads into the
backbone of any R-CNN of the same depth, with no tensor left behind: ``{"model": {name: array},
"__author__": ..., "matching_heuristics": True}``, and beside them what the checkpoint tells of its
pre-training.
"""

import os
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from common.command_line import parse
from common.errors import UserError, command
from common.files import atomic_write, check_output
from common.locks import locked

if TYPE_CHECKING:
    from common.backbones import Backbone, Which

AUTHOR = "lewel-transfer"
CAFFE2 = "Caffe2"  # whom Detectron2 takes for the author of weights that name none
TORCHVISION = "torchvision"  # of Detectron2's tools/convert-torchvision-to-d2.py

# Names in a pickled NumPy array, of NumPy 1 and 2, and in Python 2's strings.
_ALLOWED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    *((f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")),
    *((f"numpy.{core}.multiarray", "scalar") for core in ("core", "_core")),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
    ("collections", "OrderedDict"),
    ("_codecs", "encode"),
}
_ORIGIN = ("method", "norm", "epochs", "network", "recipe")


def detectron2_name(name: str) -> str:
    """Detectron2's name of a torchvision ResNet's tensor.

    >>> detectron2_name("layer1.0.downsample.1.running_var")
    'res2.0.shortcut.norm.running_var'
    """
    name = re.sub(r"^(?=conv1|bn1)", "stem.", name)
    name = re.sub(r"^layer(\d+)", lambda found: f"res{int(found[1]) + 1}", name)
    name = re.sub(r"\bbn(\d)", r"conv\1.norm", name)
    return name.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")


def convert(
    checkpoint: str | os.PathLike[str], output: str | os.PathLike[str], which: "Which" = "online"
) -> "Backbone":
    """Convert a checkpoint of any known format to a Detectron2 ``.pkl``; return what was found.

    Args:
        checkpoint: a file of any format of :data:`common.formats.FORMATS`.
        output: the ``.pkl``; floats are written as float32.
        which: the network that gradients trained, or the target that followed it by EMA.

    Raises:
        UserError: unless every tensor of the backbone is there with its shape, and the output can
            be written; nothing is written then.
    """
    from common.backbones import read_backbone

    check_output(Path(output))
    backbone = read_backbone(checkpoint, which)
    arrays = {
        detectron2_name(name): (tensor.float() if tensor.is_floating_point() else tensor)
        .detach()
        .contiguous()
        .numpy()
        for name, tensor in backbone.tensors.items()
    }
    content = {
        "model": arrays,
        "__author__": AUTHOR,
        "matching_heuristics": True,
        "method": backbone.method,
        "norm": backbone.norm,
        "epochs": backbone.epochs,
        "recipe": backbone.recipe,
        "network": backbone.which,
    }
    try:
        with atomic_write(output) as file:
            pickle.dump(content, file)
    except OSError as error:
        raise UserError(
            f"{output} cannot be written ({error.strerror}); choose another place."
        ) from error
    return backbone


def converted(checkpoint: str, digest: str, folder: Path) -> Path:
    """Detectron2 weights of a checkpoint, converted once for all jobs that start from it.

    Args:
        checkpoint: the file.
        digest: its SHA-256, which names the result.
        folder: for such results; made if need be.
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
    """Weights in Detectron2's format; ``""`` and None where they do not tell.

    Attributes:
        author: whom Detectron2 takes for the author.
        architecture: torchvision's name of the ResNet; "" for anything else.
        method: pre-training method.
        norm: its norm.
        epochs: its epochs.
        network: ``online`` or ``target``.
        recipe: differences of a pre-training of ours from the run with the published figures.
        signed: False if they name no author.
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
    """Read the origin of weights in Detectron2's format, without running code of the file's.

    Raises:
        UserError: if the file is no Detectron2 weights, or a ResNet of ours is not whole.
    """
    from common.resnets import architecture_of

    try:
        with path.open("rb") as file:
            data = _ArrayUnpickler(file, encoding="latin1").load()
    except Exception as error:  # a file cut short raises almost anything
        reason = " ".join(str(error).split())
        raise UserError(
            f"{path} is not readable as Detectron2 weights ({reason}); copy or convert it again."
        ) from error
    data = data if isinstance(data, dict) else {}
    signed = "__author__" in data
    author, model = _contents(data)
    if not is_state(model):
        raise UserError(
            f"{path} has a model but no __author__, without which Detectron2 does not find it; "
            "name one in the file, or convert a checkpoint again."
            if is_state(data.get("model")) and not signed
            else f"{path} holds no Detectron2 weights; convert a checkpoint again."
        )
    shapes = {name: tuple(array.shape) for name, array in model.items()}
    if author != AUTHOR:
        shapes = _backbone_of(author, shapes)
        return Pickled(author, architecture_of(shapes, detectron2_name), signed=signed)
    architecture = architecture_of(shapes, detectron2_name)
    if not architecture:
        raise UserError(f"{path} is not a whole ResNet; convert its checkpoint again.")
    return Pickled(author, architecture, **{key: data[key] for key in _ORIGIN if key in data})


def is_state(model: object) -> bool:
    """True for what Detectron2 can load: arrays or tensors by name, and nothing else."""
    import numpy as np
    from torch import Tensor

    return (
        isinstance(model, Mapping)
        and len(model) > 0
        and all(isinstance(value, np.ndarray | Tensor) for value in model.values())
    )


def _contents(data: dict[str, Any]) -> tuple[str, Any]:
    """Author and model, as Detectron2's ``DetectionCheckpointer`` finds them."""
    if "model" in data and "__author__" in data:
        return str(data["__author__"]), data["model"]
    blobs = data.get("blobs", data)  # Detectron's, of Caffe2
    if not isinstance(blobs, dict):
        return "", None
    return CAFFE2, {k: v for k, v in blobs.items() if not str(k).endswith("_momentum")}


def _backbone_of(author: str, shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Of weights of others what Detectron2 loads into a ResNet: no fc, no bias of conv1."""
    from detectron2.checkpoint.c2_model_loading import convert_basic_c2_names

    names = convert_basic_c2_names([*shapes]) if author == CAFFE2 else [*shapes]
    return {
        name: shape
        for name, shape in zip(names, shapes.values(), strict=True)
        if name.startswith(("stem.", "res"))
        and not name.startswith(("stem.fc.", "stem.conv1.bias"))
    }


def _report(backbone: "Backbone") -> list[str]:
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


def _command(
    checkpoint: tyro.conf.Positional[Path],
    output: tyro.conf.Positional[Path],
    online: bool = False,
    target: bool = False,
) -> None:
    """Convert a checkpoint of a self-supervised ResNet to Detectron2 weights.

    Args:
        checkpoint: A checkpoint of any known format.
        output: The .pkl to write.
        online: Convert the network that gradients trained, as by default.
        target: Convert the network that followed it by EMA.
    """
    if online and target:
        raise UserError("--online and --target are two networks; give one of them.")
    backbone = convert(checkpoint, output, "target" if target else "online")
    print("\n".join(_report(backbone)), f"written to {output}")


@command
def main(arguments: list[str] | None = None) -> None:
    """``python -m detection.convert IN OUT [--target]``."""
    parse(_command, "python -m detection.convert", arguments)


if __name__ == "__main__":
    main()
