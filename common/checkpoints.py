"""PyTorch checkpoints that may come from strangers or be cut short, read without running code.

A pickle names the functions and classes that it wants called. Of those only the ones that make
tensors, and the dicts that hold them, are called; every other object becomes a :class:`StandIn`.
"""

import os
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

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


def load(path: str | os.PathLike[str], *, plain: bool = False) -> Any:
    """``torch.load`` on the CPU, of a PyTorch checkpoint or a file in the safetensors format.

    Where a file holds more than tensors, numbers and words, as the official LEWEL release does (a
    NumPy number), DINO (its options) and OpenMMLab (the losses so far), there is a
    :class:`StandIn` for each such object; ``plain`` refuses the file. Raises a UserError if it is
    missing, truncated, or a TorchScript archive.
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
            return torch.load(path, map_location="cpu", weights_only=False, pickle_module=_INERT)
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
    """True for a file of eight bytes of length and then JSON.

    A pickle or a ZIP archive has no brace there.
    """
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def is_pickle(path: Path) -> bool:
    """True for a plain pickle, such as Detectron2's own weights; False for a PyTorch checkpoint."""
    with path.open("rb") as file:
        head = file.read(len(_TORCH))
    return head.startswith(_BEGINNINGS) and head != _TORCH and not is_safetensors(path)


class StandIn:
    """An object in the place of one that is neither a tensor nor a plain container.

    Its class is called like that of the object; ``state`` is in most cases its attributes by name.
    """

    state: object = None
    dump_patches = False  # or torch.load writes files on code that has changed

    def __new__(cls, *_: object, **__: object) -> "StandIn":
        return super().__new__(cls)

    def __call__(self, *_: object, **__: object) -> "StandIn":
        return self

    def __setstate__(self, state: object) -> None:
        self.state = state

    def _pass_over(self, *_: object) -> None:
        """Items of an object that is a list, a set or a dict as well."""

    append = extend = add = __setitem__ = _pass_over


def kind_of(value: object) -> str:
    """Module and name of an object's class, or of the class that a stand-in stands for."""
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")


class _Function:
    """A function that a file may call, and not change: a pickle can set attributes."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return args[0] if isinstance(args[0], StandIn) else self._function(*args)

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("functions have no state")


def _stand_in(module: str, name: str, **attributes: object) -> type[StandIn]:
    return type(name, (StandIn,), {"__module__": module, **attributes})


def _member(owner: Any, name: str) -> type[StandIn]:
    """A stand-in for a member that ``getattr`` finds, by which old protocols name nested ones."""
    return _stand_in(str(getattr(owner, "__module__", "")), name)


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch.storage", "UntypedStorage"): _stand_in(
        "torch.storage", "UntypedStorage", dtype=torch.uint8
    ),
    **{  # called what it makes
        (f"numpy.{core}.multiarray", "_reconstruct"): _stand_in("numpy", "ndarray")
        for core in ("core", "_core")
    },
    **{
        ("torch._utils", name): _Function(getattr(torch._utils, name))
        for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter")
    },
    **{(builtins, "getattr"): _Function(_member) for builtins in ("builtins", "__builtin__")},
}


class Unpickler(pickle.Unpickler):
    """Unpickler of tensors, numbers, words, lists, tuples and dicts, and of stand-ins."""

    def find_class(self, module: str, name: str) -> Any:
        return _ALLOWED.get((module, name)) or _stand_in(module, name)


def _load(file: IO[bytes], **options: Any) -> Any:
    """``pickle.load``, which ``torch.load`` calls for the parts of an old file."""
    return Unpickler(file, **options).load()


# A pickle_module of torch.load.
_INERT: Any = SimpleNamespace(__name__=__name__, Unpickler=Unpickler, load=_load)
