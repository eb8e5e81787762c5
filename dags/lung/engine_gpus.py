"""The GPUs of a Docker engine's machine, which may be another one than this."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from airflow.sdk.exceptions import AirflowException
from docker.errors import APIError, NotFound
from docker.types import DeviceRequest

from lung.gpus import NVIDIA_SMI, Gpu, gpus_of

# A driver that no process keeps loaded takes seconds for each GPU.
SECONDS = 60
# What the engine, the toolkit and nvidia-smi say where there is no toolkit, no driver or no GPU.
WITHOUT_GPUS = ("could not select device driver", "libnvidia-ml.so", "No devices were found")


def has_toolkit(info: dict[str, Any]) -> bool:
    """Whether an engine's `info` names NVIDIA's runtime or, since Docker 28.2, its CDI devices."""
    devices = [device.get("ID", "") for device in info.get("DiscoveredDevices") or []]
    return any("nvidia" in name for name in [*(info.get("Runtimes") or {}), *devices])


def offered_gpus(client: Any, image: str, labels: dict[str, str]) -> list[Gpu]:
    """The engine's GPUs, as nvidia-smi lists them in a short container; [] where it has none.

    Args:
        client: docker-py's APIClient.
        image: any image; the toolkit adds nvidia-smi.
        labels: of the container, by which its task removes it where this process is killed.

    Raises AirflowException where there are GPUs that do not answer: to compute on the CPU instead
    would take days without a word.
    """
    host_config = client.create_host_config(
        read_only=True,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        network_mode="none",
        device_requests=[DeviceRequest(count=-1, capabilities=[["gpu", "utility"]])],
    )
    container = client.create_container(
        image=image, command=list(NVIDIA_SMI), labels=labels, host_config=host_config
    )["Id"]
    try:
        client.start(container)
        status = client.wait(container, timeout=SECONDS)["StatusCode"]
        output = client.logs(container).decode(errors="replace")
    except APIError as error:
        status, output = -1, str(error.explanation or error)
    finally:
        with suppress(NotFound):
            client.remove_container(container, v=True, force=True)
    if status == 0:
        return list(gpus_of(output))
    if any(text in output for text in WITHOUT_GPUS):
        return []
    raise AirflowException(
        f"The engine's GPUs do not answer: {' '.join(output.split())}. Mend NVIDIA's driver and "
        "container toolkit there, or set LUNG_GPUS=0 for the CPU"
    )
