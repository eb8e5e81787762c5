"""The cores of a job, by the files of both versions of cgroups, and the threads of torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.runtime import cores as module
from jobs.runtime.cores import cores, limit_threads

V2, V1 = "cpu.max", "cpu/cpu.cfs_quota_us"


def cgroups(folder: Path, name: str, quota: str) -> Path:
    """A folder as /sys/fs/cgroup of a container with this quota in microseconds of 100,000."""
    (folder / "cpu").mkdir()
    if name == V2:
        (folder / V2).write_text(f"{quota} 100000\n")
    else:
        (folder / V1).write_text(f"{quota}\n")
        (folder / "cpu/cpu.cfs_period_us").write_text("100000\n")
    return folder


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))


@pytest.mark.parametrize("name", [V1, V2])
@pytest.mark.parametrize(
    ("quota", "expected"),
    [("100000", 1), ("150000", 2), ("200000", 2), ("1000", 1), ("800000", 8), ("6400000", 8)],
)
def test_a_quota_is_rounded_up_to_whole_cores(
    tmp_path: Path, name: str, quota: str, expected: int
) -> None:
    assert cores(cgroups(tmp_path, name, quota)) == expected


@pytest.mark.parametrize(("name", "quota"), [(V1, "-1"), (V2, "max")])
def test_without_a_quota_all_cores_of_the_affinity_are_the_jobs(
    tmp_path: Path, name: str, quota: str
) -> None:
    assert cores(cgroups(tmp_path, name, quota)) == 8
    assert cores(tmp_path / "no cgroups") == 8


def test_openmp_is_limited_where_there_is_a_quota_and_the_users_own_number_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    limit_threads(tmp_path / "no cgroups")
    assert "OMP_NUM_THREADS" not in os.environ
    quota = cgroups(tmp_path, V2, "300000")
    limit_threads(quota)
    assert os.environ["OMP_NUM_THREADS"] == "3"
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    limit_threads(quota)
    assert os.environ["OMP_NUM_THREADS"] == "5"


@pytest.mark.slow
def test_torch_keeps_to_the_quota(tmp_path: Path) -> None:
    # One core: MKL starts no more threads than the machine has cores, whatever it is asked for.
    cgroups(tmp_path, V2, "100000")
    code = f"""
import os, pathlib
os.sched_getaffinity = lambda pid: set(range(8))
from jobs.runtime import cores
cores.limit_threads(pathlib.Path({str(tmp_path)!r}))
import torch
print(torch.get_num_threads())
"""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    process = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(module.__file__).parents[2],
    )
    assert process.stdout == "1\n"
