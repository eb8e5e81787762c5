"""The next film reuses freed memory, in whatever thread, without a page from the kernel."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.runtime.memory import job_memory
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


@pytest.mark.parametrize(
    ("file", "content", "is_limit"),
    [
        ("memory.max", "1073741824\n", True),
        ("memory.max", "max\n", False),
        ("memory/memory.limit_in_bytes", "1073741824\n", True),
        ("memory/memory.limit_in_bytes", "9223372036854771712\n", False),
        ("memory.max", "", False),
        ("other", "1\n", False),
    ],
)
def test_the_jobs_memory_is_the_containers_where_it_is_less_than_the_machines(
    tmp_path: Path, file: str, content: str, is_limit: bool
) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(content)
    meminfo = Path("/proc/meminfo").read_text()
    machine = 1024 * int(meminfo.partition("MemTotal:")[2].split()[0])
    assert job_memory(tmp_path) == pytest.approx(2**30 if is_limit else machine, rel=0.01)
