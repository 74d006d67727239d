"""Which format a checkpoint has, where its networks are, and what else it holds."""

import functools
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor

from common.formats import FORMATS, STATE, Format, Place
from common.unpickling import StandIn

Containers: TypeAlias = dict[str, dict[str, Tensor]]

WRAPPERS = ("module.", "")  # DistributedDataParallel's, before everything else

# The children of nn.Sequential(*resnet.children()); ReLU and pooling, 2, 3 and 8, have no tensors.
SEQUENTIAL = {"0": "conv1", "1": "bn1", **{str(i + 3): f"layer{i}" for i in range(1, 5)}}
STAGES = tuple(SEQUENTIAL.values())
# Any of these behind a prefix tells a ResNet, so that one which lacks a tensor is still named.
_SIGNS = ("conv1.weight", "layer1.0.conv1.weight", "layer4.0.conv1.weight")
_SEQUENTIAL_SIGNS = ("4.0.conv1.weight", "7.0.conv1.weight")

# Containers whose tensors are nobody's weights.
_NOT_NETWORKS = ("optimizer", "callbacks", "loops", "message_hub")
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
        networks: of ``online``, ``target`` and ``again``, those that are there.
        rows: the format's, or those of all that it may be.
    """

    name: str
    method: str
    epochs: int | None
    networks: dict[str, Network]
    rows: tuple[Format, ...]

    def unexplained(self, containers: Containers, resnet: Collection[str]) -> list[str]:
        """The tensors that no network and no rule of the format explains; by name.

        Args:
            containers: of the checkpoint.
            resnet: torchvision's names of the ResNet's tensors.
        """
        others: dict[str, str] = {}
        for at, state in containers.items():
            here = [n for n in self.networks.values() if n.container == at]
            path = "" if here or at in STATE else f"{at}/"
            for name in state:
                if not any(n.torchvision_name(name) in resnet for n in here):
                    others[qualified(at, name)] = path + _unwrapped(name)
        left = [
            sorted(name for name, bare in others.items() if not _rules(row).fullmatch(bare))
            for row in self.rows
        ]
        return min(left, key=len)

    def elsewhere(self, containers: Containers) -> str:
        """Where a ResNet begins that is none of the format's networks; "" if there is none."""
        known = {(n.container, n.prefix) for n in self.networks.values()}
        for at, state in containers.items():
            for name in state:
                found = re.fullmatch(r"(|.*\.)(layer4|7)\.0\.conv1\.weight", name)
                if found and (at, found[1]) not in known:
                    return qualified(at, found[1])
        return ""


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
        for which, place in (("target", one.target), ("again", one.again)):
            if place and (network := _find(place, containers)):
                networks.setdefault(which, network)
    said = _at(loaded, form.told) if form.told else None
    method = (said if isinstance(said, str) else form.method) if certain else ""
    epochs = _at(loaded, form.epoch) if method else None
    return Recognised(
        " or ".join(f.name for f in alike),
        method,
        epochs if isinstance(epochs, int) else None,
        networks,
        tuple(alike),
    )


def find_containers(loaded: Mapping[str, object]) -> Containers:
    """Every dict of a checkpoint that holds tensors, those of its optimizer aside.

    Returns:
        {keys that lead to it joined by "/": {name: tensor}}; "" for the checkpoint itself.
    """
    return _collect(Tensor, loaded, "", _DEEPEST)


def find_stand_ins(loaded: Mapping[str, object]) -> dict[str, dict[str, StandIn]]:
    """Objects that were not loaded, as :func:`find_containers` finds tensors."""
    return _collect(StandIn, loaded, "", _DEEPEST)


def _collect(
    kind: type[Any], node: Mapping[str, object], path: str, depth: int
) -> dict[str, dict[str, Any]]:
    here = {str(k): v for k, v in node.items() if isinstance(v, kind)}
    found = {path: here} if here else {}
    for key, value in node.items():
        if isinstance(value, Mapping) and depth and not str(key).startswith(_NOT_NETWORKS):
            found |= _collect(kind, value, f"{path}/{key}".removeprefix("/"), depth - 1)
    return found


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
    return all(any(_pattern(c).match(name) for name in names) for c in companions)


@functools.cache
def _pattern(names: str) -> re.Pattern[str]:
    """A pattern of the table, in which a dot is a dot."""
    return re.compile(names.replace(".", r"\."))


def _rules(row: Format) -> re.Pattern[str]:
    """All names that a row explains."""
    return _pattern(
        "|".join(
            f"({layer})" + (f".({'|'.join(tensors.split())})" if tensors else "")
            for layer, tensors in row.rest.items()
        )
    )


def _at(loaded: object, path: str) -> object:
    """What a checkpoint holds under keys joined by "/"; None if there is no such thing."""
    for key in path.split("/"):
        if isinstance(loaded, StandIn):  # for an argparse.Namespace
            loaded = loaded.state
        loaded = loaded.get(key) if isinstance(loaded, Mapping) else None
    return loaded
