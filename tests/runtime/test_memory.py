"""The next film reuses freed memory, in whatever thread, without a page from the kernel."""

from __future__ import annotations

import json
import platform
import subprocess
import sys

import pytest

from tests.support.films import ROOT

COUNT_FAULTS = """
import json, resource, sys
from concurrent.futures import ThreadPoolExecutor
from jobs.runtime.memory import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
def film(pixel):
    len(pixel * (80 * 2**20))
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
faults = []
for _ in range(4):
    with ThreadPoolExecutor(1) as pool:
        faults.append(pool.submit(film, b"x").result())
print(json.dumps([after - before for before, after in zip(faults, faults[1:])]))
"""


def faults(mode: str) -> list[int]:
    """Page faults of each of three films of 80 MiB after a first one."""
    command = [sys.executable, "-c", COUNT_FAULTS, mode]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    counts: list[int] = json.loads(process.stdout)
    return counts


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt")
def test_a_film_reuses_the_memory_of_the_film_before() -> None:
    assert min(faults("default")) > 100 * max(*faults("kept"), 1)
