"""scripts/gpu-count.sh: LUNG_GPUS as a number, by stand-ins of a driver and an engine."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.airflow.airflow_home import StartError, count_gpus
from tests.support.films import ROOT

# As the driver lists two GPUs, the second of them divided into two.
LISTING = """\
GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-5f8e2c1a-0000-0000-0000-000000000001)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-5f8e2c1a-0000-0000-0000-000000000002)
  MIG 3g.40gb     Device  0: (UUID: MIG-5f8e2c1a-0000-0000-0000-000000000003)
  MIG 3g.40gb     Device  1: (UUID: MIG-5f8e2c1a-0000-0000-0000-000000000004)
"""
RUNTIME = '{"Runtimes":{"nvidia":{"path":"nvidia-container-runtime"},"runc":{"path":"runc"}}}'
CDI = '{"DiscoveredDevices":[{"Source":"cdi","ID":"nvidia.com/gpu=0"}]}'
NEITHER = '{"Runtimes":{"runc":{"path":"runc"}}}'
REFUSAL = 'docker: could not select device driver "" with capabilities: [[gpu]]'

Machine = Callable[..., None]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Puts a driver and an engine first on PATH.

    Args: what nvidia-smi prints here and its exit code; the engine's `info`; what nvidia-smi prints
    in a container that asks for GPUs, or the engine's refusal.
    """
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for name in ("TORCH", "LUNG_JOBS_IMAGE"):
        monkeypatch.delenv(name, raising=False)

    def set_up(
        *, driver: str = "", code: int = 0, info: str = NEITHER, inside: str = "", refusal: str = ""
    ) -> None:
        texts = {"driver": driver, "info": info, "inside": inside, "refusal": refusal}
        for name, text in texts.items():
            (tmp_path / f"{name}.txt").write_text(text)
        scripts = {
            "nvidia-smi": f"cat driver.txt\nexit {code}",
            "docker": """
case $* in
  info*) cat info.txt ;;
  "run --rm --gpus all --network none lung-jobs:local nvidia-smi -L")
    cat refusal.txt >&2; cat inside.txt; [ ! -s refusal.txt ] ;;
  *) exit 99 ;;
esac""",
        }
        for name, script in scripts.items():
            (tmp_path / name).write_text(f"#!/bin/sh\ncd '{tmp_path}'\n{script}\n")
            (tmp_path / name).chmod(0o755)

    return set_up


@pytest.mark.parametrize("setting", ["", "all"])
def test_all_is_the_number_of_gpus_of_the_driver_for_processes(
    machine: Machine, setting: str
) -> None:
    machine(driver=LISTING)
    assert count_gpus(setting, "process") == 2


@pytest.mark.parametrize("info", [RUNTIME, CDI])
def test_all_is_the_number_of_gpus_that_a_container_gets(
    machine: Machine, info: str, capfd: pytest.CaptureFixture[str]
) -> None:
    machine(info=info, inside=LISTING)
    assert count_gpus("all", "docker") == 2
    assert capfd.readouterr().err == ""


def test_an_engine_that_passes_no_gpu_on_is_said_with_its_words(
    machine: Machine, capfd: pytest.CaptureFixture[str]
) -> None:
    machine(driver=LISTING, refusal=REFUSAL)
    assert count_gpus("all", "docker") == 0
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert "compute on the CPU" in said
    assert "docs/gpu-node.md" in said
    assert REFUSAL in said


@pytest.mark.parametrize("backend", ["docker", "process"])
def test_a_machine_without_gpus_or_with_a_broken_driver_has_none_and_no_word_is_said(
    machine: Machine, backend: str, capfd: pytest.CaptureFixture[str]
) -> None:
    machine()
    assert count_gpus("all", backend) == 0
    machine(driver="NVIDIA-SMI has failed because it couldn't communicate\n", code=9)
    assert count_gpus("all", backend) == 0
    machine(driver="No devices were found\n", code=6)
    assert count_gpus("all", backend) == 0
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("backend", ["docker", "process"])
def test_with_pytorchs_build_for_the_cpu_the_jobs_have_none(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    machine(driver=LISTING, info=RUNTIME, inside=LISTING)
    monkeypatch.setenv("TORCH", "cpu")
    assert count_gpus("all", backend) == 0


def test_a_number_is_taken_as_it_is_and_another_word_is_refused(machine: Machine) -> None:
    machine()
    assert count_gpus("3", "docker") == 3
    assert count_gpus("08", "process") == 8
    with pytest.raises(StartError, match=r"^LUNG_GPUS is 'some': give a number of GPUs, or all$"):
        count_gpus("some", "docker")


def test_the_script_refuses_an_unknown_backend(machine: Machine) -> None:
    machine(driver=LISTING)
    script = ROOT / "scripts/gpu-count.sh"
    process = subprocess.run([script, "cluster", "all"], capture_output=True, text=True)
    assert (process.returncode, process.stdout) == (2, "")
    assert "'cluster' is not one of docker, process" in process.stderr
