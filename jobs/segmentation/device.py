"""Which device this process computes on, and in which arithmetic."""

from __future__ import annotations

import os

import torch


def local_device() -> torch.device:
    """The GPU numbered LOCAL_RANK where there are GPUs, else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def computes_bfloat16(device: torch.device) -> bool:
    """Whether `device` multiplies bfloat16 matrices in hardware; emulated, it is slower."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    features = torch.cpu.get_capabilities()
    return bool(features.get("avx512_bf16") or features.get("amx_bf16"))


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context that a network runs in.

    Args:
        precision: "float32", "bfloat16", or "auto": bfloat16 where the device computes in it.
    """
    enabled = precision == "bfloat16" or (precision == "auto" and computes_bfloat16(device))
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)
