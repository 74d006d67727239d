"""Detectron2's own ``.pkl`` weights, read without running code of the file's."""

import pickle
from pathlib import Path
from typing import Any

from common.backbones import ARCHITECTURES, resnet_shapes
from common.errors import UserError
from detection.convert import AUTHOR, detectron2_name

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


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed")
        return super().find_class(module, name)


def read_architecture(path: Path) -> str:
    """The torchvision ResNet in weights that ``detection.convert`` wrote; "" for other weights.

    Raises:
        UserError: if the file is no Detectron2 weights, or a ResNet of ours is not whole.
    """
    try:
        with path.open("rb") as file:
            data = _ArrayUnpickler(file, encoding="latin1").load()
    except Exception as error:  # a file cut short raises almost anything
        raise UserError(
            f"{path} is not readable as Detectron2 weights ({error}); copy or convert it again."
        ) from error
    if not isinstance(data, dict) or not data:
        raise UserError(f"{path} holds no Detectron2 weights; convert a checkpoint again.")
    if data.get("__author__") != AUTHOR:
        return ""
    shapes = {name: tuple(array.shape) for name, array in data["model"].items()}
    for architecture in ARCHITECTURES:
        wanted = {detectron2_name(k): s for k, s in resnet_shapes(architecture).items()}
        counters = {k for k in wanted if k.endswith("num_batches_tracked") and k not in shapes}
        if {k: s for k, s in wanted.items() if k not in counters} == shapes:
            return architecture
    raise UserError(f"{path} is not a whole ResNet; convert its checkpoint again.")
