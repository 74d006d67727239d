"""Reading and writing PyTorch checkpoints that may come from strangers, or be cut short."""

import argparse
import os
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from common.errors import UserError
from common.files import atomic_write

# A pickle begins with its protocol, or, of protocols 0 and 1, with a dict or its class. What
# torch.save wrote before PyTorch 1.6 is a row of pickles, the first of which is this number.
_BEGINNINGS = (b"\x80", b"(", b"}", b"c")
_TORCH = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)


def save(path: str | os.PathLike[str], checkpoint: dict[str, Any]) -> None:
    """``torch.save``, atomically."""
    with atomic_write(path) as file:
        torch.save(checkpoint, file)


def load(path: str | os.PathLike[str]) -> Any:
    """``torch.load`` on the CPU with ``weights_only=True``: no code of the file's is run.

    NumPy scalars are allowed, since the official LEWEL release keeps one in ``best_acc1``, and
    the command line's values, which DINO, PixPro and PyContrast keep as an ``argparse.Namespace``.
    A file in the safetensors format, known by its first bytes, is a dict of its tensors.

    Raises:
        UserError: if the file is missing, truncated, or holds more than tensors and numbers.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no checkpoint at {path}; check the path.")
    try:
        if is_safetensors(path):
            return load_file(path)
        with torch.serialization.safe_globals([*_numpy_scalar_globals(), argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        forbidden = re.findall(r"GLOBAL (\S+)", str(error))
        if forbidden:
            raise UserError(
                f"{path} holds more than tensors and numbers ({forbidden[0]}) and was not loaded; "
                "save it again from its own project as a plain state_dict."
            ) from error
        raise UserError(_unreadable(path)) from error
    except Exception as error:  # a legacy file cut short raises almost anything
        raise UserError(_unreadable(path)) from error


def is_safetensors(path: Path) -> bool:
    """Whether a file has eight bytes of length, then JSON.

    A pickle or a ZIP archive has no brace there.
    """
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def is_pickle(path: Path) -> bool:
    """Whether a file begins as a plain pickle does, such as Detectron2's own weights, and not as a
    PyTorch checkpoint."""
    with path.open("rb") as file:
        head = file.read(len(_TORCH))
    return head.startswith(_BEGINNINGS) and head != _TORCH and not is_safetensors(path)


def _unreadable(path: Path) -> str:
    size = path.stat().st_size
    return (
        f"{path} is not a readable PyTorch checkpoint ({size} bytes): it is truncated or "
        "of another kind; copy or download it again."
    )


def _numpy_scalar_globals() -> list[Any]:
    """What a pickled NumPy number names, in NumPy 1's and in NumPy 2's words."""
    scalar = np.float64(0).__reduce__()[0]
    return [
        (scalar, "numpy.core.multiarray.scalar"),
        (scalar, "numpy._core.multiarray.scalar"),
        np.dtype,
        *{type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i4", "i8", "u1", "?")},
    ]
