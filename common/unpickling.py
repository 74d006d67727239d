"""Unpickling that makes tensors and runs no other code; ``torch.load`` takes it as pickle_module.

A pickle names the functions and classes that it wants called. Of those, only the ones below, which
make tensors and the dicts that hold them, are; for every other stands a class of no consequence.
"""

import pickle
from collections import OrderedDict
from collections.abc import Callable
from typing import IO, Any

import torch


class StandIn:
    """What stands for an object that is neither a tensor nor a plain container.

    Its class is called like that of the object.

    Attributes:
        state: what the file says of the object, in most cases its attributes by name.
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
    """In the place of ``getattr``, by which old protocols name what is in a class or an object."""
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
}


class Unpickler(pickle.Unpickler):
    """Unpickler of tensors, numbers, words, lists, tuples and dicts, and of stand-ins."""

    def find_class(self, module: str, name: str) -> Any:
        if name == "getattr" and module in ("builtins", "__builtin__"):
            return _Function(_member)
        return _ALLOWED.get((module, name)) or _stand_in(module, name)


def kind_of(value: object) -> str:
    """Module and name of an object's class, or of what it stands for."""
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")


def load(file: IO[bytes], **options: Any) -> Any:
    """``pickle.load``; what ``torch.load`` calls for the parts of an old file."""
    return Unpickler(file, **options).load()
