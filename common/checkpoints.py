"""Reading and writing PyTorch checkpoints that may come from strangers, or be cut short."""

import os
import pickle
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from common import unpickling
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


def load(path: str | os.PathLike[str], *, plain: bool = False) -> Any:
    """``torch.load`` on the CPU; no code of the file's is run.

    Where a file holds more than tensors, numbers and words, as the official LEWEL release does (a
    NumPy number), DINO (its options) and OpenMMLab (the losses so far), there is a
    :class:`~common.unpickling.StandIn` for each object of another class.
    A file in the safetensors format, known by its first bytes, is a dict of its tensors.

    Args:
        path: of the file.
        plain: refuse such a file instead, for others will load it.

    Raises:
        UserError: if the file is missing, truncated, or a TorchScript archive.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no checkpoint at {path}; check the path.")
    try:
        if is_safetensors(path):
            return load_file(path)
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:  # no TorchScript or tar archive, which raise other errors
            if plain:
                raise
            return torch.load(
                path, map_location="cpu", weights_only=False, pickle_module=unpickling
            )
    except Exception as error:  # a legacy file cut short raises almost anything
        raise UserError(f"{path} {_refusal(path, str(error))}") from error


def _refusal(path: Path, error: str) -> str:
    if "TorchScript" in error:
        return (
            "is a TorchScript archive, which is code; save the state_dict of what torch.jit.load "
            "makes of it, and give that."
        )
    forbidden = re.findall(r"GLOBAL (\S+)", error)
    if forbidden:
        return (
            f"holds more than tensors and numbers ({forbidden[0]}) and was not loaded; save it "
            "again from its own project as a plain state_dict."
        )
    return (
        f"is not a readable PyTorch checkpoint ({path.stat().st_size} bytes): it is truncated or "
        "of another kind; copy or download it again."
    )


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
