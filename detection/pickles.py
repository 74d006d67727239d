"""Detectron2's own ``.pkl`` weights, read without running code of the file's."""

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.checkpoint.c2_model_loading import convert_basic_c2_names
from torch import Tensor

from common.backbones import ARCHITECTURES, resnet_shapes
from common.errors import UserError
from detection.convert import AUTHOR, detectron2_name

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
        recipe: what of a pre-training of ours is not as in the run with the published figures.
        signed: whether they name their author, whom Detectron2 guesses otherwise.
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
    """What weights in Detectron2's format are, as far as they tell.

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
        architecture = _architecture(_backbone_shapes(author, model))
        return Pickled(author, architecture, signed=signed)
    architecture = _architecture({name: tuple(array.shape) for name, array in model.items()})
    if not architecture:
        raise UserError(f"{path} is not a whole ResNet; convert its checkpoint again.")
    fields = ("method", "norm", "epochs", "network", "recipe")
    told = {key: data[key] for key in fields if key in data}
    return Pickled(author, architecture, **told)


def is_state(model: object) -> bool:
    """Whether this is what Detectron2 can load: arrays or tensors by name, and nothing else."""
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
    names = convert_basic_c2_names([*model]) if author == CAFFE2 else [*model]
    return {
        name: tuple(array.shape)
        for name, array in zip(names, model.values(), strict=True)
        if name.startswith(("stem.", "res"))
        and not name.startswith(("stem.fc.", "stem.conv1.bias"))
    }


def _architecture(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """The ResNet that has exactly these tensors, BatchNorm's counters aside; "" if none has."""
    for architecture in ARCHITECTURES:
        wanted = {detectron2_name(k): s for k, s in resnet_shapes(architecture).items()}
        counters = {k for k in wanted if k.endswith("num_batches_tracked") and k not in shapes}
        if {k: s for k, s in wanted.items() if k not in counters} == shapes:
            return architecture
    return ""
