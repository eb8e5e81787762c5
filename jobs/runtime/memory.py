"""The memory of this job: how much it may take, and malloc, which keeps it for the next film."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

# Limits of a container: of cgroup version 2, "max" without one, and version 1, a huge number.
CGROUP_LIMITS = ("memory.max", "memory/memory.limit_in_bytes")
CGROUPS = Path("/sys/fs/cgroup")

# glibc reads MALLOC_* variables only when a process starts, which would need each caller to set
# them (a shell, Airflow, a test) or a second start of Python: so mallopt(3), by ctypes.
# The numbers are those of glibc's malloc.h; other C libraries have no mallopt.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -4, -8
SETTINGS = {
    # By default malloc maps each large block, a film or a layer of the network, and unmaps it after
    # use. The kernel then clears every page again for the next block, one thread at a time: a
    # quarter of the time that predict takes for films of 20 megapixels.
    M_MMAP_MAX: 0,
    M_TRIM_THRESHOLD: 2**31 - 1,
    M_TOP_PAD: 64 * 2**20,
    # One arena: all threads reuse the memory that any of them freed.
    M_ARENA_MAX: 1,
}


def keep_freed_memory() -> None:
    """Have malloc keep freed memory; call it before the first thread is started."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    for parameter, value in SETTINGS.items():
        if mallopt:
            mallopt(parameter, value)


def job_memory(cgroups: Path = CGROUPS) -> int:
    """Bytes that this job may take: the machine's, or its container's where that is less."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in CGROUP_LIMITS:
        try:
            text = (cgroups / name).read_text().strip()
        except OSError:
            continue
        if text.isdecimal() and int(text):
            limits.append(int(text))
    return min(limits)
