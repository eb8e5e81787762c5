"""GPUs for a job that is a process of this machine, which would see all of them."""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from lung.gpu_share import ALL
from lung.gpus import NVIDIA_SMI, Gpu, gpus_of, needed

VISIBLE = "CUDA_VISIBLE_DEVICES"
SECONDS = 60


@contextmanager
def visible_gpus(
    share: str, home: str, others: Callable[[], Iterator[str]]
) -> Iterator[dict[str, str]]:
    """The variable that shows a job its share of the GPUs; the block starts the job.

    A GPU that no other job has, and no other program computes on, comes first. Nothing waits: jobs
    share GPUs where these are too few. Where `share` is "all", and where the user has set the
    variable, the job sees what this process sees.

    Args:
        share: a number, "any" or "all", as `gpu_share` says.
        home: a folder; no two blocks of one folder run at the same time.
        others: the values of the variable in the other jobs on this machine.

    Raises AirflowFailException where the machine has too few.
    """
    if share == "0":
        yield {VISIBLE: ""}
    elif share == ALL or VISIBLE in os.environ:
        yield {}
    else:
        with _locked(home):
            gpus = machine_gpus()
            count = needed(share, gpus)
            taken = {uuid for value in others() for uuid in value.split(",")}
            gpus.sort(key=lambda gpu: (gpu.uuid in taken, not gpu.is_idle, gpu.index))
            yield {VISIBLE: ",".join(gpu.uuid for gpu in gpus[:count])}


def machine_gpus() -> list[Gpu]:
    """The GPUs of this machine; [] without NVIDIA's driver."""
    with suppress(OSError, subprocess.SubprocessError):
        listing = subprocess.run(
            NVIDIA_SMI, capture_output=True, text=True, timeout=SECONDS, check=True
        )
        return list(gpus_of(listing.stdout))
    return []


@contextmanager
def _locked(folder: str) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
