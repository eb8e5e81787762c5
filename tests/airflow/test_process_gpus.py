"""Which GPUs a job that is a process of this machine sees, with a stand-in for nvidia-smi."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytestmark = pytest.mark.airflow

# Without any other program: a machine of the tests may have a GPU.
PROGRAM = """#!/bin/sh
echo 0, GPU-a, NVIDIA H200, {}
echo 1, GPU-b, NVIDIA H200, 4
echo 2, GPU-c, NVIDIA H200, 4
"""


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path, without nvidia-smi until `list_gpus` writes it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path


def list_gpus(machine: Path, used_mib: int = 4) -> None:
    """Have nvidia-smi list three GPUs; `used_mib` of the first one's memory are in use."""
    program = machine / "nvidia-smi"
    program.write_text(PROGRAM.format(used_mib))
    program.chmod(0o755)


def visible(share: str, machine: Path, *others: str) -> dict[str, str]:
    from lung.process_gpus import visible_gpus

    with visible_gpus(share, str(machine), lambda: iter(others)) as variables:
        return variables


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        ("0", {"CUDA_VISIBLE_DEVICES": ""}),
        ("any", {"CUDA_VISIBLE_DEVICES": "GPU-a"}),
        ("2", {"CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b"}),
        ("all", {}),
    ],
)
def test_a_process_sees_its_share_of_the_gpus(
    share: str, expected: dict[str, str], machine: Path
) -> None:
    list_gpus(machine)
    assert visible(share, machine) == expected


def test_gpus_of_other_jobs_and_of_other_programs_come_last(machine: Path) -> None:
    list_gpus(machine, used_mib=20_000)
    assert visible("any", machine, "GPU-b", "") == {"CUDA_VISIBLE_DEVICES": "GPU-c"}
    assert visible("any", machine, "GPU-b,GPU-c") == {"CUDA_VISIBLE_DEVICES": "GPU-a"}
    assert visible("3", machine) == {"CUDA_VISIBLE_DEVICES": "GPU-b,GPU-c,GPU-a"}


def test_without_a_driver_one_gpu_where_there_is_one_is_the_cpu(machine: Path) -> None:
    assert visible("any", machine) == {"CUDA_VISIBLE_DEVICES": ""}


def test_more_gpus_than_the_machine_has_are_an_error_that_is_never_retried(machine: Path) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    list_gpus(machine)
    with pytest.raises(AirflowFailException, match=r"needs 4 GPUs and .* offers 3"):
        visible("4", machine)


def test_the_users_own_choice_of_gpus_stays(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    list_gpus(machine)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-c")
    assert visible("any", machine) == {}


def test_jobs_that_start_at_the_same_moment_see_different_gpus(machine: Path) -> None:
    from lung.process_gpus import visible_gpus

    list_gpus(machine)
    started: list[str] = []
    barrier = threading.Barrier(3)

    def others() -> Iterator[str]:
        yield from list(started)

    def start() -> None:
        barrier.wait(20)
        with visible_gpus("any", str(machine), others) as variables:
            time.sleep(0.05)  # as a process that starts
            started.append(variables["CUDA_VISIBLE_DEVICES"])

    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(start) for _ in range(3)]:
            done.result()
    assert sorted(started) == ["GPU-a", "GPU-b", "GPU-c"]
