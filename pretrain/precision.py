"""Automatic mixed precision: its type, and the loss scaler."""

import logging

import torch

from common.distributed import World
from pretrain.collectives import of_all_processes

log = logging.getLogger("pretrain")


def autocast_dtype(amp: str, world: World) -> torch.dtype | None:
    """The type of the forward pass's matrix products, the same in all processes; None for float32.

    ``auto`` is bfloat16 where every process's GPU has it, float16 if one is older, for a scaled
    gradient of float16 must not meet one of bfloat16 in their sum. CPUs never use float16. All
    processes call this together.
    """
    if amp == "off" or (world.device.type == "cpu" and amp != "bf16"):
        return None
    if amp != "auto":
        return torch.bfloat16 if amp == "bf16" else torch.float16
    have = of_all_processes(torch.cuda.is_bf16_supported(including_emulation=False))
    if any(have) and not all(have):
        without = [rank for rank, has in enumerate(have) if not has]
        log.warning("processes %s have GPUs without bfloat16: all use float16", without)
    return torch.bfloat16 if all(have) else torch.float16


def make_scaler(dtype: torch.dtype | None) -> torch.amp.GradScaler:
    """A loss scaler, which does nothing unless ``dtype`` is float16."""
    return torch.amp.GradScaler("cuda", enabled=dtype == torch.float16)


def optimizer_step(scaler: torch.amp.GradScaler, optimizer: torch.optim.Optimizer) -> bool:
    """Take a step; False if the scaler skipped it because gradients overflowed."""
    before = scaler.get_scale()
    scaler.step(optimizer)
    scaler.update()
    return scaler.get_scale() >= before
