"""The cost of a pre-training, counted without a GPU, and the hours that it may take.

A step of the run's own model, optimizer and target is taken on tensors without data, and what
each operator computes and keeps is added up.
"""

import math
import pkgutil
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from pretrain import methods
from pretrain.config import ResolvedConfig
from pretrain.selfsupervised import SelfSupervised
from pretrain.train import build

GIB = 2**30
RESERVE = int(1.5 * GIB)  # the CUDA context, about 1 GiB, and fragmentation

# Images/s of one GPU training ResNet-50 at 224 px: in mixed precision, and in float32 (TF32 on the
# A100). V100-32 and A100-80: NVIDIA/DeepLearningExamples, README.md of PyTorch's resnet50v1.5.
# H100 SXM: the A100's times 2,616 / 1,582, which the same training made on both in
# lambdal/deeplearning-benchmark, pytorch-train-throughput-fp16.csv; nothing like it in float32.
SPEEDS: Mapping[str, tuple[float, float | None]] = {
    "V100": (1156, 356),
    "A100": (2470, 938),
    "H100": (2470 * 2616 / 1582, None),
}
R50_FLOPS = 24.3e9  # a sample of that training; multiply-adds are two

# LEWEL's published log of 100 epochs has 156 images/s on each of 8 V100, where the speed above
# would make 335: what a run reaches is between.
LEAST_SHARE = 156 / 335

# Samples/s of two views at 224 px that one core makes, of JPEGs of 640 and of 500x375 px.
SAMPLES_A_CORE = (33, 57)


@dataclass(frozen=True)
class Cost:
    """The cost of a step for one of the processes. Bytes, but for the first four."""

    images: int  # of the process
    parameters: int  # of both networks and all MLPs
    trained: int  # of these
    flops: int  # multiply-adds are two
    live: int  # of tensors, at the peak
    reduced: int  # gradients, which are views of DDP's buckets; 0 in one process
    gathered: int  # images of all processes, where BatchNorm is over shuffled ones
    checkpoint: int  # a file

    @property
    def memory(self) -> int:
        """Bytes that a GPU needs, with context and fragmentation."""
        return self.live + self.gathered + RESERVE


@dataclass(frozen=True)
class Speed:
    """A run on GPUs of a kind, at least and at most."""

    samples: tuple[float, float]  # a second, of each GPU
    hours: tuple[float, float]
    cores: tuple[int, int]  # of the loader, for each GPU


class Counter(TorchDispatchMode):
    """Add up what runs under it: bytes of live tensors, and floating-point operations.

    A storage counts from the first operator that returns a tensor of it until it is freed. Tensors
    may be fake or real.

    Attributes:
        live: bytes of the storages that are alive.
        peak: the most that ``live`` has been.
        flops: operations of convolutions and matrix products, of which multiply-adds are two.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = self.flops = 0
        self._storages: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        flops = flop_registry.get(func._overloadpacket)
        if flops is not None:
            self.flops += flops(*args, **kwargs, out_val=out)
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._add(leaf.untyped_storage())
        return out

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._storages:
            return

        def freed(_: object) -> None:
            self.live -= size
            del self._storages[key]

        self._storages[key] = weakref.ref(storage, freed)
        self.live += size
        self.peak = max(self.peak, self.live)


def count(config: ResolvedConfig, processes: int) -> Cost:
    """The cost of a run whose batch is split over so many GPUs.

    Tensors are labelled as the CPU's: on fake CUDA devices a backward pass needs a GPU.
    """
    images = config.batch_size // processes
    dtype = None if config.amp == "off" else torch.bfloat16  # float16 has as many bytes
    with torch.device("meta"):  # where deepcopy works
        model = build(config)
    with FakeTensorMode(), Counter() as counter:
        model._apply(lambda tensor: torch.empty(tensor.shape, dtype=tensor.dtype))
        optimizer = pkgutil.resolve_name(methods.find(config.method).optimizer)(model, config)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        for parameter in trained:  # a step begins with the last one's gradients and momentum
            parameter.grad = torch.empty_like(parameter)
        optimizer.step()
        take_step(model, optimizer, images, config.image_size, dtype)
        state = [*model.state_dict().values(), *tree_leaves(dict(optimizer.state))]
    several = processes > 1
    view = images * 3 * config.image_size**2 * 4
    return Cost(
        images=images,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        trained=sum(parameter.numel() for parameter in trained),
        flops=counter.flops,
        live=counter.peak,
        reduced=sum(parameter.nbytes for parameter in trained) if several else 0,
        gathered=(processes + 1) * view if several and config.norm == "shufflebn" else 0,
        checkpoint=sum(one.nbytes for one in state if isinstance(one, Tensor)),
    )


def take_step(
    model: SelfSupervised,
    optimizer: torch.optim.Optimizer,
    images: int,
    size: int,
    dtype: torch.dtype | None = None,
) -> None:
    """A step as the engine takes it, on empty views (images, 3, size, size)."""
    views = torch.empty(images, 3, size, size), torch.empty(images, 3, size, size)
    with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
        loss = model(*views)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    model.update_target(0, 1)


def speed(cost: Cost, config: ResolvedConfig, steps: int, gpu: str) -> Speed | None:
    """A run of so many steps on GPUs of :data:`SPEEDS`; None where nothing was published."""
    images_a_second = SPEEDS[gpu][config.amp == "off"]
    if images_a_second is None:
        return None
    most = images_a_second * R50_FLOPS * cost.images / cost.flops
    least = most * LEAST_SHARE
    slow_core, fast_core = SAMPLES_A_CORE
    seconds = steps * cost.images
    return Speed(
        (least, most),
        (seconds / most / 3600, seconds / least / 3600),
        (math.ceil(least / fast_core), math.ceil(most / slow_core)),
    )
