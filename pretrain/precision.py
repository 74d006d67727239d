"""Automatic mixed precision: which type, and when a loss scaler is needed."""

import torch


def autocast_dtype(amp: str, device: torch.device) -> torch.dtype | None:
    """The type of the forward pass's matrix products; None for float32.

    Args:
        amp: ``auto`` is bfloat16 where the GPU has it, float16 on older ones, off on CPUs;
            ``bf16``, ``fp16`` and ``off`` are themselves, except that CPUs never use fp16.
        device: where the model is.
    """
    if amp == "off" or (device.type == "cpu" and amp != "bf16"):
        return None
    if amp == "bf16" or (amp == "auto" and torch.cuda.is_bf16_supported(including_emulation=False)):
        return torch.bfloat16
    return torch.float16


def make_scaler(dtype: torch.dtype | None) -> torch.amp.GradScaler:
    """A loss scaler, which does nothing unless ``dtype`` is float16."""
    return torch.amp.GradScaler("cuda", enabled=dtype == torch.float16)


def optimizer_step(scaler: torch.amp.GradScaler, optimizer: torch.optim.Optimizer) -> bool:
    """Step, and say whether the step was taken: the scaler skips it when gradients overflow."""
    before = scaler.get_scale()
    scaler.step(optimizer)
    scaler.update()
    return scaler.get_scale() >= before
