"""The one place that knows Detectron2 0.6 from the repository's head, and GPUs from CPUs."""

import functools
import random
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist
from detectron2.data import MapDataset, build_detection_train_loader
from detectron2.evaluation import coco_evaluation
from detectron2.utils import comm
from faster_coco_eval import COCOeval_faster
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from common.distributed import World
from common.workers import outlive_sigterm


def create_local_process_group(world: World) -> None:
    """Tell Detectron2 which processes share a machine, which its own launcher would do."""
    if world.size == 1 or comm._LOCAL_PROCESS_GROUP is not None:
        return
    if hasattr(comm, "create_local_process_group"):  # head
        comm.create_local_process_group(world.local_size)
        return
    for first in range(0, world.size, world.local_size):
        ranks = list(range(first, first + world.local_size))
        group = dist.new_group(ranks)
        if world.rank in ranks:
            comm._LOCAL_PROCESS_GROUP = group


def data_parallel(model: nn.Module, world: World) -> nn.Module:
    """Detectron2's DDP wrapper, which takes every model for one on a GPU."""
    if world.size == 1:
        return model
    ids = [world.device.index] if world.device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=ids, broadcast_buffers=False)


class _DrawsFromSets(random.Random):
    """Python's generator, which stopped drawing from sets with 3.11."""

    def sample(self, population: Collection[int], k: int, **how: Any) -> list[int]:  # type: ignore[override]
        return super().sample(sorted(population), k, **how)


def train_loader(cfg: Any, mapper: Callable[[dict[str, Any]], dict[str, Any] | None]) -> Any:
    """Detectron2's training loader; where ``mapper`` gives None, it draws another image.

    To draw one it samples from a set, which Python 3.11 refuses.
    """
    loader = protect_workers(build_detection_train_loader(cfg, mapper=mapper))
    inner: Any = loader
    while not isinstance(inner, MapDataset):
        inner = inner.dataset
    inner._rng = _DrawsFromSets(42)  # Detectron2's own seed
    return loader


def protect_workers(loader: Any) -> Any:
    """Let a loader's workers outlive a cluster's SIGTERM; Detectron2 has no argument for it."""
    inner: Any = loader
    while not isinstance(inner, DataLoader):
        inner = inner.dataset
    of_detectron2 = inner.worker_init_fn
    inner.worker_init_fn = functools.partial(_start_worker, of_detectron2)
    return loader


def _start_worker(of_detectron2: Callable[[int], None] | None, worker: int) -> None:
    outlive_sigterm(worker)
    if of_detectron2 is not None:
        of_detectron2(worker)


@contextmanager
def faster_coco_eval() -> Iterator[None]:
    """Let Detectron2's COCO evaluator use faster-coco-eval for its compiled COCOeval."""
    module: Any = coco_evaluation
    before = module.COCOeval_opt
    module.COCOeval_opt = COCOeval_faster
    try:
        yield
    finally:
        module.COCOeval_opt = before
