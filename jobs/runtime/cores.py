"""The processor cores of this job: its own, where a container's limit leaves it fewer."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
# Microseconds of processor time, and the period in which they may be used: cgroup version 2 has
# both in one file, "max" without a limit; version 1 has two, a quota of -1 without a limit.
QUOTAS = (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"))


def cores(cgroups: Path = CGROUPS) -> int:
    """The threads that compute at a time without waiting for each other's core; at least 1.

    A quota of 1.5 cores counts as 2: two threads of which each computes three quarters of the time.
    """
    return max(1, math.ceil(min(_affinity(), _quota(cgroups))))


def limit_threads(cgroups: Path = CGROUPS) -> None:
    """Have OpenMP, and so torch, start at most `cores` threads; call it before torch is imported.

    They ask the machine, not the container: 64 threads would fight for a quota of 2 cores.
    """
    if cores(cgroups) < _affinity():
        os.environ.setdefault("OMP_NUM_THREADS", str(cores(cgroups)))


def _affinity() -> int:
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quota(cgroups: Path) -> float:
    """The quota in cores; infinite without one."""
    for names in QUOTAS:
        try:
            words = " ".join((cgroups / name).read_text() for name in names).split()
        except OSError:
            continue
        if len(words) == 2 and all(map(str.isdecimal, words)) and int(words[1]):
            return int(words[0]) / int(words[1])
    return math.inf
