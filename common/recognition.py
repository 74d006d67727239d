"""Which format a checkpoint has, where its networks are, and what else it holds."""

import argparse
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

from common.formats import FORMATS, STATE, Place

Containers: TypeAlias = dict[str, dict[str, Tensor]]

WRAPPERS = ("module.", "")  # DistributedDataParallel's, before everything else

# The children of nn.Sequential(*resnet.children()); ReLU and pooling, 2, 3 and 8, have no tensors.
SEQUENTIAL = {"0": "conv1", "1": "bn1", **{str(i + 3): f"layer{i}" for i in range(1, 5)}}
STAGES = tuple(SEQUENTIAL.values())
# Any of these behind a prefix tells a ResNet, so that one which lacks a tensor is still named.
_SIGNS = ("conv1.weight", "layer1.0.conv1.weight", "layer4.0.conv1.weight")
_SEQUENTIAL_SIGNS = ("4.0.conv1.weight", "7.0.conv1.weight")

_NOT_NETWORKS = ("optimizer", "callbacks", "loops")  # containers whose tensors are nobody's weights
_DEEPEST = 6  # of nested dicts; VISSL's are 5


@dataclass(frozen=True)
class Network:
    """A ResNet's tensors in a checkpoint.

    Attributes:
        container: the key of the dict that holds them.
        prefix: what precedes their names, ``module.`` included.
        sequential: whether an ``nn.Sequential`` numbers its stages.
    """

    container: str
    prefix: str
    sequential: bool

    def torchvision_name(self, name: str) -> str | None:
        """torchvision's name of one of the container's tensors; None if it is not of the ResNet.

        >>> Network("", "backbone.", sequential=True).torchvision_name("backbone.4.0.bn1.bias")
        'layer1.0.bn1.bias'
        """
        if not name.startswith(self.prefix):
            return None
        stage, dot, rest = name.removeprefix(self.prefix).partition(".")
        if self.sequential:
            stage = SEQUENTIAL.get(stage, "")
        # A fifth layer too, which no ResNet has: it is to be refused, not passed over.
        is_stage = dot and re.fullmatch(r"conv1|bn1|layer\d+", stage)
        return f"{stage}.{rest}" if is_stage else None


@dataclass(frozen=True)
class Recognised:
    """A checkpoint whose format is known.

    Attributes:
        name: the format's, or those of all that it may be.
        method: what trained it, "" where that is not certain.
        epochs: whole epochs of training, None where that is not certain.
        networks: of ``online`` and ``target``, those that are there.
    """

    name: str
    method: str
    epochs: int | None
    networks: dict[str, Network]


def recognise(loaded: Mapping[str, object], containers: Containers) -> Recognised | None:
    """Where a checkpoint has its networks, and what trained them; None for an unknown format.

    Args:
        loaded: the checkpoint.
        containers: :func:`find_containers` of it.
    """
    possible = [(f, found) for f in FORMATS if (found := _find(f.online, containers))]
    if not possible:
        return None
    names = {_unwrapped(n) for state in containers.values() for n in state} | {*map(str, loaded)}
    certain = [pair for pair in possible if _has_all(names, pair[0].companions)]
    form, online = (certain or possible)[0]
    alike = [form] if certain else [f for f, found in possible if found == online]
    networks = {"online": online}
    for one in alike:
        target = _find(one.target, containers) if one.target else None
        if target:
            networks.setdefault("target", target)
    said = _at(loaded, form.told) if form.told else None
    method = (said if isinstance(said, str) else form.method) if certain else ""
    epochs = _at(loaded, form.epoch) if method else None
    return Recognised(
        " or ".join(f.name for f in alike),
        method,
        epochs if isinstance(epochs, int) else None,
        networks,
    )


def find_containers(loaded: Mapping[str, object]) -> Containers:
    """Every dict of a checkpoint that holds tensors, those of its optimizer aside.

    Returns:
        {keys that lead to it joined by "/": {name: tensor}}; "" for the checkpoint itself.
    """
    found: Containers = {}
    _collect(loaded, "", _DEEPEST, found)
    return found


def _collect(node: Mapping[str, object], path: str, depth: int, found: Containers) -> None:
    tensors = {str(k): v for k, v in node.items() if isinstance(v, Tensor)}
    if tensors:
        found[path] = tensors
    for key, value in node.items():
        if isinstance(value, Mapping) and depth and not str(key).startswith(_NOT_NETWORKS):
            _collect(value, f"{path}/{key}".removeprefix("/"), depth - 1, found)


def qualified(container: str, name: str) -> str:
    """A tensor's name with its container, but for the usual ``state_dict``."""
    return name if container in STATE else f"{container}/{name}"


def group(names: Iterable[str]) -> dict[str, int]:
    """How many of the names there are of each network, neck, head or buffer; most first.

    >>> group(["module.encoder_k.layer1.0.bn1.bias", "module.encoder_k.conv1.weight", "queue"])
    {'module.encoder_k': 2, 'queue': 1}
    """
    return dict(Counter(_owner(name) for name in names).most_common())


def _owner(name: str) -> str:
    """What a tensor belongs to: up to two words of its name, before any layer of a ResNet."""
    container, slash, name = name.rpartition("/")
    wrapper = "module." if name.startswith("module.") else ""
    words = name.removeprefix(wrapper).split(".")
    kept: list[str] = []
    for word in words[:-1][:2]:
        if word.isdigit() or word.startswith(STAGES):
            break
        kept.append(word)
    return f"{container}{slash}{wrapper}{'.'.join(kept or words[:1])}"


def _find(place: Place, containers: Containers) -> Network | None:
    for container in place.containers:
        state = containers.get(container, {})
        for prefix in (w + p for p in place.prefixes for w in WRAPPERS):
            if any(prefix + sign in state for sign in _SIGNS):
                return Network(container, prefix, sequential=False)
            if any(prefix + sign in state for sign in _SEQUENTIAL_SIGNS):
                return Network(container, prefix, sequential=True)
    return None


def _unwrapped(name: str) -> str:
    return name.removeprefix("module.")


def _has_all(names: set[str], companions: Iterable[str]) -> bool:
    return all(any(name.startswith(c) for name in names) for c in companions)


def _at(loaded: object, path: str) -> object:
    """What a checkpoint holds under keys joined by "/"; None if there is no such thing."""
    for key in path.split("/"):
        if isinstance(loaded, argparse.Namespace):
            loaded = vars(loaded)
        loaded = loaded.get(key) if isinstance(loaded, Mapping) else None
    return loaded
