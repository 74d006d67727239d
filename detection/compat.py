"""Differences between Detectron2 0.6 and the repository's head, and between GPUs and CPUs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.evaluation import coco_evaluation
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from hotcoco import COCOeval
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from common.distributed import World


@contextmanager
def process_groups(world: World) -> Iterator[None]:
    """Tell Detectron2 which processes share a machine, as its own launcher would, for the block.

    After it Detectron2 holds no process group: it would keep gloo's threads alive until Python
    ends, when one that is not at rest aborts the process.
    """
    if world.size > 1 and hasattr(comm, "create_local_process_group"):  # head
        comm.create_local_process_group(world.local_size)
    elif world.size > 1:
        for first in range(0, world.size, world.local_size):
            ranks = list(range(first, first + world.local_size))
            group = dist.new_group(ranks)  # in all processes, for every group
            if world.rank in ranks:
                comm._LOCAL_PROCESS_GROUP = group
    try:
        yield
    finally:
        comm._LOCAL_PROCESS_GROUP = None
        comm._get_global_gloo_group.cache_clear()


def data_parallel(model: nn.Module, world: World) -> nn.Module:
    """DDP as Detectron2 has it, which takes every model for one on a GPU.

    DDP sorts its buckets anew after the first step of a job, and with three processes the order of
    sums changes with them: a run that is resumed would not be an uninterrupted one to the bit. A
    DDP that looks for unused parameters leaves them alone.
    """
    if world.size == 1:
        return model
    on_gpu = world.device.type == "cuda"  # where sums are never in one order
    return DistributedDataParallel(
        model,
        device_ids=[world.device.index] if on_gpu else None,
        broadcast_buffers=False,
        find_unused_parameters=not on_gpu and world.size > 2,
    )


def seed_sampler(cfg: Any, seed: int) -> Any:
    """A copy of a config with which Detectron2's training samplers have the order of ``seed``.

    0.6's draw their seed from NumPy's generator, the head's take the config's. Every process calls
    this, right before the sampler is made.
    """
    seeded = cfg.clone()
    seeded.defrost()
    seed_all_rng(seed)
    seeded.SEED = comm.shared_random_seed()
    seed_all_rng(seed)
    return seeded


def forget_load(checkpointer: DetectionCheckpointer) -> None:
    """Let a checkpointer load again after an exception; the head's keeps that it is loading."""
    checkpointer._parsed_url_during_load = None


@contextmanager
def hotcoco_eval() -> Iterator[None]:
    """Let Detectron2's COCO evaluator use hotcoco's COCOeval for its compiled one.

    Detectron2's head must find it when an evaluator is made, too, or it falls back to pycocotools.
    """
    module: Any = coco_evaluation
    before = module.COCOeval_opt
    module.COCOeval_opt = COCOeval
    try:
        yield
    finally:
        module.COCOeval_opt = before
