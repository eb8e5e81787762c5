"""The number of NVIDIA GPUs that the jobs of an Airflow on this machine can use."""

from __future__ import annotations

import json
import subprocess

from scripts.airflow.airflow_home import StartError

# A driver that is being loaded takes long; without GPUs both commands are instant.
SECONDS = 30


def count(setting: str, backend: str) -> int:
    """LUNG_GPUS as a number: itself, or for `all` (also empty) the GPUs that the backend can use.

    Raises StartError for another value.
    """
    if setting.isdecimal():
        return int(setting)
    if setting not in ("", "all"):
        raise StartError(f"LUNG_GPUS is {setting!r}: give a number of GPUs, or all")
    if backend == "docker" and not engine_offers_gpus():
        return 0
    lines = _output(["nvidia-smi", "--list-gpus"]).splitlines()
    # Below a GPU its MIG devices are listed, indented.
    return sum(line.startswith("GPU ") for line in lines)


def engine_offers_gpus() -> bool:
    """Whether the Docker engine has NVIDIA's runtime or knows NVIDIA's devices by CDI."""
    try:
        info = json.loads(_output(["docker", "info", "--format", "{{json .}}"]))
    except ValueError:
        return False
    runtimes, devices = str(info.get("Runtimes")), str(info.get("DiscoveredDevices"))
    return "nvidia" in runtimes or "nvidia.com/gpu" in devices


def _output(command: list[str]) -> str:
    """What the command prints; "" where it is missing, fails or hangs."""
    try:
        process = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return "" if process.returncode else process.stdout
