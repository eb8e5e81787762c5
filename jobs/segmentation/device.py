"""The device that this process computes on, its number format, and how many films fit into it."""

from __future__ import annotations

import functools
import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch

from jobs.errors import ConfigError
from jobs.segmentation import ranks

log = logging.getLogger(__name__)

# There where a machine or a container has a GPU of NVIDIA.
GPU_DRIVER = Path("/dev/nvidiactl")


def local_device() -> torch.device:
    """The GPU of this rank, else the first one; the CPU where there are no GPUs."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", ranks.local_rank())


def computes_bfloat16(device: torch.device) -> bool:
    """Whether `device` multiplies bfloat16 matrices in hardware; emulated, it is slower."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    features = torch.cpu.get_capabilities()
    return bool(features.get("avx512_bf16") or features.get("amx_bf16"))


def arithmetic(device: torch.device, precision: str) -> torch.dtype:
    """The dtype that convolutions compute in.

    Args:
        precision: "float32", "bfloat16", "float16" or "auto". "auto" is bfloat16 where the device
            computes in it; else float16 on a GPU, where the loss is scaled so that small gradients
            do not vanish; else float32.
    """
    if precision != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[
            precision
        ]
    if computes_bfloat16(device):
        return torch.bfloat16
    return torch.float16 if device.type == "cuda" else torch.float32


@functools.cache
def log_device(precision: str, processes: int = 1) -> None:
    """Log what the network runs on, in one process or several; once, however often it is called.

    Args:
        precision: as for `arithmetic`.
    """
    device = local_device()
    dtype = str(arithmetic(device, precision)).removeprefix("torch.")
    if device.type == "cuda":
        # `launch` refuses more processes than GPUs.
        used = range(min(processes, torch.cuda.device_count()))
        names = Counter(torch.cuda.get_device_name(number) for number in used)
        gpus = ", ".join(f"{count} x {name}" for name, count in names.items())
        log.info("computing on GPUs in %s: %s", dtype, gpus)
        return
    threads = max(1, torch.get_num_threads() // processes)
    log.info("computing on the CPU in %s, processes %d, threads %d each", dtype, processes, threads)
    if torch.version.cuda is None and GPU_DRIVER.exists():
        log.warning("this torch is built for CPUs and leaves the GPU unused: build with TORCH=cuda")


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context that a network runs in; `precision` as for `arithmetic`."""
    dtype = arithmetic(device, precision)
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def most_that_fit(attempt: Callable[[int], None], films: int, device: torch.device) -> int:
    """`films`, halved until `attempt(films)` runs in the memory of `device`.

    Nothing is tried on a CPU: its kernel does not refuse memory, it kills the process later.
    Raises ConfigError where not even one film fits.
    """
    while device.type != "cpu":
        try:
            attempt(films)
            break
        except torch.OutOfMemoryError as error:
            if films <= 1:
                raise ConfigError(
                    f"one film does not fit into the memory of {device}: give a smaller --network "
                    "or --size, or a GPU with more memory"
                ) from error
            films = -(-films // 2)
            torch.cuda.empty_cache()
    return films
