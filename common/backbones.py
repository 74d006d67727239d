"""The ResNet in a checkpoint of a self-supervised method, recognised by the names in it."""

import functools
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torchvision
from torch import Tensor, nn

from common import checkpoints
from common.errors import UserError
from common.recognition import (
    Containers,
    find_containers,
    find_stand_ins,
    group,
    qualified,
    recognise,
)
from common.unpickling import kind_of

Which = Literal["online", "target"]

# arch of the LEWEL and EMAN releases -> method, norm; our own checkpoints say both beside it
ARCHS = {
    "LEWELB_EMAN": ("LEWEL_B", "eman"),
    "LEWELB": ("LEWEL_B", "syncbn"),
    "MoCoEMAN": ("MoCo-EMAN", "eman"),  # MoCo v2's names
}
ARCHITECTURES = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "wide_resnet50_2",
    "wide_resnet101_2",
)
_SHOWN = 12  # groups of names in a refusal


@dataclass(frozen=True)
class Backbone:
    """A ResNet's tensors under torchvision's names, and what its checkpoint tells of it.

    Attributes:
        tensors: every tensor of the backbone, BatchNorm counters too.
        architecture: torchvision's name of the ResNet.
        format: name of the checkpoint's format, or names where it may be one of several; or what
            it is like, and which tensors it has that the format does not.
        method: pre-training method, "" where the checkpoint does not tell.
        norm: norm of the pre-training, "" likewise.
        epochs: epochs of pre-training, None likewise.
        ignored: names of the checkpoint's other tensors.
        prefix: what preceded the tensors' names in the checkpoint.
        missing: torchvision's names of tensors that are not there: BatchNorm counters, which
            nothing reads.
        which: the network that it is, of a method's two.
        recipe: what of a pre-training of ours is not as in the run with the published figures; ""
            if nothing is, or for a stranger's.
    """

    tensors: dict[str, Tensor]
    architecture: str
    format: str
    method: str
    norm: str
    epochs: int | None
    ignored: tuple[str, ...]
    prefix: str = ""
    missing: tuple[str, ...] = ()
    which: Which = "online"
    recipe: str = ""

    @property
    def ignored_groups(self) -> dict[str, int]:
        """How many of the ignored tensors belong to each network, neck, head or buffer."""
        return group(self.ignored)


def depth_of(architecture: str) -> int:
    """50 for resnet50."""
    return int(re.findall(r"resnet(\d+)", architecture)[0])


def width_of(architecture: str) -> int:
    """Channels of the first stage's 3x3 convolutions: 64, or of a wide one 128."""
    return 128 if architecture.startswith("wide") else 64


def read_backbone(checkpoint: str | os.PathLike[str], which: Which = "online") -> Backbone:
    """Read and check the backbone of a checkpoint; runs no code of the file's.

    Args:
        checkpoint: a file of any format of :data:`common.formats.FORMATS`.
        which: the network that gradients trained, or the target that followed it by EMA.

    Raises:
        UserError: if the file cannot be read, has no such network, or not every tensor of it.
    """
    loaded = checkpoints.load(checkpoint)
    if not isinstance(loaded, Mapping):
        raise UserError(
            f"{checkpoint} holds a {kind_of(loaded)}, not a checkpoint; save a state_dict, and "
            "give that."
        )
    containers, stand_ins = find_containers(loaded), find_stand_ins(loaded)
    found = recognise(loaded, containers)
    if found is None:
        raise UserError(
            f"{checkpoint} is no checkpoint of a known format: {_seen(containers, stand_ins)}; "
            "save the state_dict of its ResNet alone, and give that."
        )
    if which not in found.networks:
        elsewhere = found.elsewhere(containers)
        raise UserError(
            f"{checkpoint} ({found.name}) has another ResNet, {elsewhere}, of which its format "
            "does not say that it is the target; save its state_dict alone, and give that "
            "without --target."
            if elsewhere
            else f"{checkpoint} ({found.name}) has no target network, only one backbone; leave "
            "--target out."
        )
    network = found.networks[which]
    state = containers[network.container]
    for k, value in stand_ins.get(network.container, {}).items():
        if network.torchvision_name(k) is not None:
            raise UserError(
                f"{checkpoint} holds a {kind_of(value)} as {qualified(network.container, k)}, "
                "where a tensor is needed; save its state_dict again, of tensors alone."
            )
    taken = {k: name for k in state if (name := network.torchvision_name(k)) is not None}
    tensors = {name: state[k] for k, name in taken.items()}
    architecture = _architecture(tensors, checkpoint)
    origin = _origin(loaded) or (found.method, "", found.epochs)
    name = found.name
    left = found.unexplained(containers, resnet_shapes(architecture)) if origin[0] else []
    if left:
        origin = "", "", None
        name = f"like {name} but for {len(left)} tensor{'s' * (len(left) > 1)} such as {left[0]}"
    return Backbone(
        tensors,
        architecture,
        name,
        *origin,
        ignored=tuple(
            sorted(
                qualified(container, k)
                for container, others in containers.items()
                for k in others
                if container != network.container or k not in taken
            )
        ),
        prefix=qualified(network.container, network.prefix),
        missing=tuple(sorted(resnet_shapes(architecture).keys() - tensors)),
        which=which,
        recipe=_recipe(loaded),
    )


def _recipe(loaded: Mapping[str, object]) -> str:
    """What a checkpoint of ours says of its recipe, which older ones do not."""
    ours = isinstance(loaded.get("config"), Mapping) and "title" in loaded
    return str(loaded.get("recipe", "recipe not told")) if ours else ""


def _origin(loaded: Mapping[str, object]) -> tuple[str, str, int | None] | None:
    """Method, norm and epochs of a checkpoint of these releases or of ours; None for others."""
    config, title = loaded.get("config"), loaded.get("title")
    if isinstance(config, Mapping) and isinstance(title, str):
        origin = title, str(config.get("norm", ""))
    elif str(loaded.get("arch")) in ARCHS:
        origin = ARCHS[str(loaded["arch"])]
    else:
        return None
    epochs = loaded.get("epoch")
    return *origin, epochs if isinstance(epochs, int) else None


def _seen(containers: Containers, stand_ins: Mapping[str, Mapping[str, object]]) -> str:
    """What tensors a file holds, for who has to find out why it is not known."""
    groups = group(qualified(c, name) for c, state in containers.items() for name in state)
    if not groups and stand_ins:
        container, most = max(stand_ins.items(), key=lambda pair: len(pair[1]))
        name, value = next(iter(most.items()))
        return f"it holds no tensors, but a {kind_of(value)} as {qualified(container, name)}"
    if not groups:
        return "it holds no tensors"
    shown = [f"{owner} ({count})" for owner, count in list(groups.items())[:_SHOWN]]
    return f"its tensors are named {', '.join(shown)}{', ...' if len(groups) > _SHOWN else ''}"


def _architecture(tensors: Mapping[str, Tensor], checkpoint: str | os.PathLike[str]) -> str:
    """The torchvision ResNet whose backbone has exactly these names and shapes."""
    shapes = {k: tuple(v.shape) for k, v in tensors.items()}
    nearest: tuple[int, str, list[str]] | None = None
    for name in ARCHITECTURES:
        wanted = resnet_shapes(name)
        wrong = sorted(
            k
            for k in wanted.keys() | shapes.keys()
            if wanted.get(k) != shapes.get(k) and not _optional(k, shapes)
        )
        if not wrong:
            return name
        if nearest is None or len(wrong) < nearest[0]:
            nearest = len(wrong), name, wrong
    assert nearest is not None
    count, name, wrong = nearest
    example = wrong[0]
    raise UserError(
        f"{checkpoint} is not a whole ResNet: compared with {name}, {count} tensors are missing, "
        f"unknown or of another shape, such as {example} ({shapes.get(example, 'missing')}, "
        f"expected {resnet_shapes(name).get(example, 'none')}); nothing was written."
    )


def _optional(name: str, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Old checkpoints have no BatchNorm counters, which nothing here reads."""
    return name.endswith("num_batches_tracked") and name not in shapes


@functools.cache
def resnet_shapes(architecture: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors of a torchvision ResNet but its fc; not to be changed."""
    with torch.device("meta"):
        state = torchvision.models.get_model(architecture).state_dict()
    return {k: tuple(v.shape) for k, v in state.items() if not k.startswith("fc.")}


def build_resnet(backbone: Backbone) -> nn.Module:
    """The torchvision ResNet with these tensors, images (b, 3, h, w) -> features (b, c).

    Every tensor is loaded, strictly; the fc is gone.
    """
    resnet = torchvision.models.get_model(backbone.architecture)
    resnet.fc = nn.Identity()
    counters = {k: v for k, v in resnet.state_dict().items() if k.endswith("num_batches_tracked")}
    resnet.load_state_dict(counters | backbone.tensors)
    return resnet
