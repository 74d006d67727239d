"""The ResNet in a checkpoint of a self-supervised method, recognised by the names in it.

The table of formats, :mod:`common.formats`, is read here: it tells where a checkpoint has its
networks, which method trained them, and what else may be there.
"""

import functools
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torchvision
from torch import Tensor, nn

from common import resnets
from common.checkpoints import StandIn, kind_of, load
from common.errors import UserError
from common.formats import FORMATS, STATE, Format, Place

Which = Literal["online", "target"]
Containers: TypeAlias = dict[str, dict[str, Tensor]]

# arch of the LEWEL and EMAN releases -> method, norm; our own checkpoints say both beside it
ARCHS = {
    "LEWELB_EMAN": ("LEWEL_B", "eman"),
    "LEWELB": ("LEWEL_B", "syncbn"),
    "MoCoEMAN": ("MoCo-EMAN", "eman"),  # MoCo v2's names
}

_WRAPPERS = ("module.", "")  # DistributedDataParallel's, before everything else
# The children of nn.Sequential(*resnet.children()); ReLU and pooling, 2, 3 and 8, have no tensors.
_SEQUENTIAL = {"0": "conv1", "1": "bn1", **{str(i + 3): f"layer{i}" for i in range(1, 5)}}
_STAGES = tuple(_SEQUENTIAL.values())
# Any of these behind a prefix tells a ResNet, so that one which lacks a tensor is still named.
_SIGNS = ("conv1.weight", "layer1.0.conv1.weight", "layer4.0.conv1.weight")
_SEQUENTIAL_SIGNS = ("4.0.conv1.weight", "7.0.conv1.weight")
_NOT_NETWORKS = ("optimizer", "callbacks", "loops", "message_hub")  # containers of other tensors
_DEEPEST = 6  # of nested dicts; VISSL's are 5
_SHOWN = 12  # groups of names in a refusal


@dataclass(frozen=True)
class Backbone:
    """A ResNet's tensors under torchvision's names, and the origin that its checkpoint tells."""

    tensors: dict[str, Tensor]  # all of the backbone, BatchNorm counters too
    architecture: str
    format: str  # a name, names where it may be one of several, or "like" one but for a tensor
    method: str  # "" where the checkpoint does not tell, as for norm
    norm: str
    epochs: int | None
    recipe: str  # differences of a pre-training of ours from the one with published figures
    ignored: tuple[str, ...]  # names of the checkpoint's other tensors
    prefix: str  # of the tensors' names in the checkpoint
    missing: tuple[str, ...]  # BatchNorm counters that are not there
    which: Which  # of a method's two networks

    @property
    def ignored_groups(self) -> dict[str, int]:
        """The number of ignored tensors of each network, neck, head or buffer."""
        return _group(self.ignored)


def read_backbone(checkpoint: str | os.PathLike[str], which: Which = "online") -> Backbone:
    """Read and check the backbone of a checkpoint; runs no code of the file's.

    ``which`` is the network that gradients trained, or the target that followed it by EMA.
    Raises a UserError if the file cannot be read, has no such network, or not every tensor of it.
    """
    loaded = load(checkpoint)
    if not isinstance(loaded, Mapping):
        raise UserError(
            f"{checkpoint} holds a {kind_of(loaded)}, not a checkpoint; save a state_dict, and "
            "give that."
        )
    containers = find_containers(loaded)
    found = _recognise(loaded, containers)
    if found is None:
        raise UserError(
            f"{checkpoint} is no checkpoint of a known format: {_seen(loaded, containers)}; "
            "save the state_dict of its ResNet alone, and give that."
        )
    if which not in found.networks:
        raise UserError(
            f"{checkpoint} ({found.name}) has no target network that its format tells of: "
            f"{_seen(loaded, containers)}; leave --target out, or save the target's state_dict "
            "alone, and give that without --target."
        )
    network = found.networks[which]
    names = {k: name for k in containers[network.container] if (name := network.name_of(k))}
    tensors = {name: containers[network.container][k] for k, name in names.items()}
    shapes: dict[str, tuple[int, ...] | str] = {k: tuple(v.shape) for k, v in tensors.items()}
    for k, value in _collect(StandIn, loaded).get(network.container, {}).items():
        if name := network.name_of(k):
            shapes[name] = kind_of(value)
    architecture = resnets.architecture_of(shapes)
    if not architecture:
        raise UserError(f"{checkpoint} is not a whole ResNet: {_difference(shapes)}.")
    expected = resnets.resnet_shapes(architecture)
    method, norm, epochs, recipe = _origin(loaded, found)
    form = found.name
    if method and (left := found.unexplained(containers, expected)):
        method, norm, epochs, recipe = "", "", None, ""
        form = f"like {form} but for {len(left)} tensor{'s' * (len(left) > 1)} such as {left[0]}"
    return Backbone(
        tensors=tensors,
        architecture=architecture,
        format=form,
        method=method,
        norm=norm,
        epochs=epochs,
        recipe=recipe,
        ignored=tuple(
            sorted(
                _qualified(at, k)
                for at, state in containers.items()
                for k in state
                if at != network.container or k not in names
            )
        ),
        prefix=_qualified(network.container, network.prefix),
        missing=tuple(sorted(expected.keys() - tensors)),
        which=which,
    )


def build_resnet(backbone: Backbone) -> nn.Module:
    """The torchvision ResNet with these tensors, images (b, 3, h, w) -> features (b, c).

    Every tensor is loaded, strictly; the fc is gone.
    """
    resnet = torchvision.models.get_model(backbone.architecture)
    resnet.fc = nn.Identity()
    state = resnet.state_dict()
    resnet.load_state_dict({k: state[k] for k in backbone.missing} | backbone.tensors)
    return resnet


@dataclass(frozen=True)
class _Network:
    """A ResNet's tensors: their dict's key, their prefix, and if an ``nn.Sequential`` has it."""

    container: str
    prefix: str
    sequential: bool

    def name_of(self, name: str) -> str | None:
        """torchvision's name of one of the container's tensors; None if it is not of the ResNet.

        >>> _Network("", "backbone.", sequential=True).name_of("backbone.4.0.bn1.bias")
        'layer1.0.bn1.bias'
        """
        if not name.startswith(self.prefix):
            return None
        stage, dot, rest = name.removeprefix(self.prefix).partition(".")
        if self.sequential:
            stage = _SEQUENTIAL.get(stage, "")
        # A fifth layer too, which no ResNet has: it is to be refused, not passed over.
        is_stage = dot and re.fullmatch(r"conv1|bn1|layer\d+", stage)
        return f"{stage}.{rest}" if is_stage else None


@dataclass(frozen=True)
class _Recognised:
    """A checkpoint whose format is known.

    ``method`` is "" and ``epochs`` None where that is not certain. ``networks`` are those there of
    ``online``, ``target`` and ``again``; ``rows`` the formats that it is, or may be.
    """

    method: str
    epochs: int | None
    networks: dict[str, _Network]
    rows: tuple[Format, ...]

    @property
    def name(self) -> str:
        """The format's name, or the names of all that it may be."""
        return " or ".join(row.name for row in self.rows)

    def unexplained(self, containers: Containers, resnet: Collection[str]) -> list[str]:
        """The tensors that no network and no rule of the format explains; by name."""
        others: dict[str, str] = {}
        for at, state in containers.items():
            here = [n for n in self.networks.values() if n.container == at]
            path = "" if here or at in STATE else f"{at}/"
            for name in state:
                if not any(n.name_of(name) in resnet for n in here):
                    others[_qualified(at, name)] = path + _unwrapped(name)
        left = [
            sorted(name for name, bare in others.items() if not _rules(row).fullmatch(bare))
            for row in self.rows
        ]
        return min(left, key=len)


def _recognise(loaded: Mapping[str, object], containers: Containers) -> _Recognised | None:
    """Find a checkpoint's format, networks and method; None for an unknown format."""
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
    return _Recognised(method, epochs if isinstance(epochs, int) else None, networks, tuple(alike))


def _find(place: Place, containers: Containers) -> _Network | None:
    for container in place.containers:
        state = containers.get(container, {})
        for prefix in (w + p for p in place.prefixes for w in _WRAPPERS):
            if any(prefix + sign in state for sign in _SIGNS):
                return _Network(container, prefix, sequential=False)
            if any(prefix + sign in state for sign in _SEQUENTIAL_SIGNS):
                return _Network(container, prefix, sequential=True)
    return None


def _has_all(names: set[str], companions: Iterable[str]) -> bool:
    return all(any(_pattern(c).match(name) for name in names) for c in companions)


@functools.cache
def _pattern(names: str) -> re.Pattern[str]:
    """A pattern of the table, in which a dot is a dot."""
    return re.compile(names.replace(".", r"\."))


def _rules(row: Format) -> re.Pattern[str]:
    """The names that a row explains."""
    return _pattern(
        "|".join(
            f"({layer})" + (f".({'|'.join(tensors.split())})" if tensors else "")
            for layer, tensors in row.rest.items()
        )
    )


def _at(loaded: object, path: str) -> object:
    """The value under keys joined by "/"; None if there is no such thing."""
    for key in path.split("/"):
        if isinstance(loaded, StandIn):  # for an argparse.Namespace
            loaded = loaded.state
        loaded = loaded.get(key) if isinstance(loaded, Mapping) else None
    return loaded


def _origin(loaded: Mapping[str, object], found: _Recognised) -> tuple[str, str, int | None, str]:
    """Method, norm, epochs and recipe: as the releases and our own say them, or the table does."""
    config, title, epochs = loaded.get("config"), loaded.get("title"), loaded.get("epoch")
    epochs = epochs if isinstance(epochs, int) else None
    if isinstance(config, Mapping) and isinstance(title, str):
        recipe = str(loaded.get("recipe", "recipe not told"))  # by our older ones
        return title, str(config.get("norm", "")), epochs, recipe
    if str(loaded.get("arch")) in ARCHS:
        return *ARCHS[str(loaded["arch"])], epochs, ""
    return found.method, "", found.epochs, ""


def find_containers(loaded: Mapping[str, object]) -> Containers:
    """Every dict of a checkpoint that holds tensors, those of its optimizer aside.

    By the keys that lead to it, joined by "/"; "" is the checkpoint itself.
    """
    return _collect(Tensor, loaded)


def _collect(
    kind: type[Any], node: Mapping[str, object], path: str = "", depth: int = _DEEPEST
) -> dict[str, dict[str, Any]]:
    here = {str(k): v for k, v in node.items() if isinstance(v, kind)}
    found = {path: here} if here else {}
    for key, value in node.items():
        if isinstance(value, Mapping) and depth and not str(key).startswith(_NOT_NETWORKS):
            found |= _collect(kind, value, f"{path}/{key}".removeprefix("/"), depth - 1)
    return found


def _qualified(container: str, name: str) -> str:
    """A tensor's name with its container, but for the usual ``state_dict``."""
    return name if container in STATE else f"{container}/{name}"


def _unwrapped(name: str) -> str:
    return name.removeprefix("module.")


def _group(names: Iterable[str]) -> dict[str, int]:
    """The number of names of each network, neck, head or buffer; most first.

    >>> _group(["module.encoder_k.layer1.0.bn1.bias", "module.encoder_k.conv1.weight", "queue"])
    {'module.encoder_k': 2, 'queue': 1}
    """
    return dict(Counter(_owner(name) for name in names).most_common())


def _owner(name: str) -> str:
    """The owner of a tensor: up to two words of its name, before any layer of a ResNet."""
    container, slash, name = name.rpartition("/")
    wrapper = "module." if name.startswith("module.") else ""
    words = name.removeprefix(wrapper).split(".")
    kept: list[str] = []
    for word in words[:-1][:2]:
        if word.isdigit() or word.startswith(_STAGES):
            break
        kept.append(word)
    return f"{container}{slash}{wrapper}{'.'.join(kept or words[:1])}"


def _seen(loaded: Mapping[str, object], containers: Containers) -> str:
    """The tensors of a file in a few words, or one of the objects that are there instead."""
    groups = _group(_qualified(at, name) for at, state in containers.items() for name in state)
    if groups:
        shown = [f"{owner} ({count})" for owner, count in list(groups.items())[:_SHOWN]]
        return f"its tensors are named {', '.join(shown)}{', ...' * (len(groups) > _SHOWN)}"
    objects = _collect(StandIn, loaded)
    if objects:
        at = max(objects, key=lambda container: len(objects[container]))
        name, value = next(iter(objects[at].items()))
        return f"it holds no tensors, but a {kind_of(value)} as {_qualified(at, name)}"
    return "it holds no tensors"


def _difference(shapes: resnets.Shapes) -> str:
    """The ResNet that comes nearest, and a tensor in which it differs."""
    nearest = min(
        resnets.ARCHITECTURES,
        key=lambda name: len(resnets.differing(resnets.resnet_shapes(name), shapes)),
    )
    expected = resnets.resnet_shapes(nearest)
    differing = resnets.differing(expected, shapes)
    example = differing[0]
    return (
        f"compared with {nearest}, {len(differing)} tensors are missing, unknown or of another "
        f"shape, such as {example} ({shapes.get(example, 'missing')}, expected "
        f"{expected.get(example, 'none')}); nothing was written"
    )
