"""The pre-training methods: the ``METHOD`` of every module of this package."""

import functools
import importlib
import pkgutil

from common.errors import UserError
from pretrain.method import Method


@functools.cache
def methods() -> dict[str, Method]:
    """All methods by name; a new one is a new file here."""
    modules = (
        importlib.import_module(f"{__name__}.{m.name}") for m in pkgutil.iter_modules(__path__)
    )
    found: list[Method] = [module.METHOD for module in modules]
    return {method.name: method for method in sorted(found, key=lambda method: method.name)}


def find(name: str) -> Method:
    """A method by its name."""
    if name not in methods():
        raise UserError(f"--method {name} is unknown; choose one of {', '.join(methods())}.")
    return methods()[name]
