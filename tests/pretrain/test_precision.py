"""Mixed precision is of one type in all processes."""

from dataclasses import replace

import pytest
import torch

from common.distributed import World
from pretrain.precision import autocast_dtype
from tests.processes import in_processes

CUDA = torch.device("cuda", 0)


def _choose(world: World) -> None:
    """GPUs with bfloat16 (True) and without, in a row for each rank; gloo stands in for NCCL."""
    on_gpu = replace(world, device=CUDA)
    patch = pytest.MonkeyPatch()
    for have, expected in (
        ((True, True), torch.bfloat16),
        ((True, False), torch.float16),
        ((False, True), torch.float16),
        ((False, False), torch.float16),
    ):
        mine = have[world.rank]
        patch.setattr(torch.cuda, "is_bf16_supported", lambda mine=mine, **_: mine)
        assert autocast_dtype("auto", on_gpu) == expected
        assert autocast_dtype("bf16", on_gpu) == torch.bfloat16
        assert autocast_dtype("fp16", on_gpu) == torch.float16
        assert autocast_dtype("off", on_gpu) is None
        assert autocast_dtype("auto", world) is None
    patch.undo()


def test_processes_on_unlike_gpus_use_one_type() -> None:
    in_processes(_choose)
