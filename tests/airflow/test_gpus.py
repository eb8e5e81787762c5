"""How many GPUs the Airflow of `make airflow` offers, by stand-ins of a driver and an engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scripts.airflow import gpus
from scripts.airflow.airflow_home import StartError

# As the driver lists two GPUs, the second of them divided into two.
LISTING = """\
GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-5f8e2c1a-0000-0000-0000-000000000001)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-5f8e2c1a-0000-0000-0000-000000000002)
  MIG 3g.40gb     Device  0: (UUID: MIG-5f8e2c1a-0000-0000-0000-000000000003)
  MIG 3g.40gb     Device  1: (UUID: MIG-5f8e2c1a-0000-0000-0000-000000000004)
"""
CDI = {"DiscoveredDevices": [{"Source": "cdi", "ID": "nvidia.com/gpu=0"}]}
RUNTIME = {"Runtimes": {"nvidia": {"path": "nvidia-container-runtime"}, "runc": {"path": "runc"}}}
NEITHER = {"Runtimes": {"runc": {"path": "runc"}}, "DiscoveredDevices": None}


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts commands on an otherwise empty PATH: name, what it prints, its exit code."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def add(name: str, output: str, code: int = 0) -> None:
        (tmp_path / f"{name}.out").write_text(output)
        script = tmp_path / name
        script.write_text(f'#!/bin/sh\n/bin/cat "$0.out"\nexit {code}\n')
        script.chmod(0o700)

    return add


@pytest.mark.parametrize("setting", ["", "all"])
@pytest.mark.parametrize("engine", [RUNTIME, CDI])
def test_all_is_the_number_of_gpus_of_the_driver(machine: Any, setting: str, engine: Any) -> None:
    machine("nvidia-smi", LISTING)
    assert gpus.count(setting, "process") == 2
    machine("docker", json.dumps(engine))
    assert gpus.count(setting, "docker") == 2


def test_an_engine_that_offers_no_gpus_has_none(machine: Any) -> None:
    machine("nvidia-smi", LISTING)
    assert gpus.count("all", "docker") == 0  # no engine
    machine("docker", json.dumps(NEITHER))
    assert gpus.count("all", "docker") == 0
    machine("docker", json.dumps(RUNTIME), code=1)
    assert gpus.count("all", "docker") == 0


def test_a_machine_without_a_driver_or_with_a_broken_one_has_none(machine: Any) -> None:
    assert gpus.count("all", "process") == 0
    machine("nvidia-smi", "NVIDIA-SMI has failed because it couldn't communicate", code=9)
    assert gpus.count("all", "process") == 0
    machine("nvidia-smi", "No devices were found\n")
    assert gpus.count("all", "process") == 0


def test_a_number_is_taken_as_it_is_and_another_word_is_refused(machine: Any) -> None:
    assert gpus.count("3", "docker") == 3
    with pytest.raises(StartError, match="LUNG_GPUS is 'some': give a number of GPUs, or all"):
        gpus.count("some", "docker")
