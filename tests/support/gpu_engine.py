"""A stand-in for a Docker engine with GPUs: it answers the calls of docker-py's APIClient.

Like the engine it gives any GPU to any number of containers. It notes each GPU that two started
containers had at the same time in `conflicts`.
"""

from __future__ import annotations

import itertools
import queue
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from tests.support.airflow_tasks import context

IMAGE = "lung-jobs:local"


@dataclass
class FakeGpu:
    uuid: str
    name: str = "NVIDIA H200"
    used_mib: str = "4"


def node(gpus: int) -> list[FakeGpu]:
    """The GPUs of a machine: GPU-0, GPU-1, ..."""
    return [FakeGpu(f"GPU-{number}") for number in range(gpus)]


class _Response:
    """What docker-py's streams have; JobClient closes it."""

    def close(self) -> None:
        pass


class _Socket(socket.socket):
    __slots__ = ("_response",)

    def __init__(self, fileno: int) -> None:
        super().__init__(fileno=fileno)
        self._response = _Response()


class _Events:
    """The events of one container, until its removal."""

    def __init__(self) -> None:
        self._response = _Response()
        self.queue: queue.Queue[Any] = queue.Queue()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.queue.get, None)

    def close(self) -> None:
        self.queue.put(None)


@dataclass
class FakeContainer:
    id: str
    labels: dict[str, str]
    host_config: dict[str, Any]
    command: list[str]
    state: str = "created"
    events: list[_Events] = field(default_factory=list)
    output: list[socket.socket] = field(default_factory=list)

    @property
    def devices(self) -> list[str]:
        requests = self.host_config.get("DeviceRequests") or []
        return [uuid for request in requests for uuid in request["DeviceIDs"]]


class GpuEngine:
    """Args:
    gpus: of the machine; changed by a test as other programs would.
    toolkit: whether `info` names NVIDIA's runtime.
    on_create: called before a job's container is created.
    job: called by a thread for each started job with its container; the job ends when it returns.
    """

    def __init__(
        self,
        gpus: list[FakeGpu],
        *,
        toolkit: bool = True,
        on_create: Callable[[], object] = lambda: None,
        job: Callable[[FakeContainer], object] = lambda container: None,
    ) -> None:
        self.gpus = gpus
        self.toolkit = toolkit
        self.on_create = on_create
        self.job = job
        self.answer = (0, "")  # exit code and output of nvidia-smi in place of the list of GPUs
        self.conflicts: list[str] = []
        self.started: list[FakeContainer] = []
        self.probes = 0
        self._containers: dict[str, FakeContainer] = {}
        self._numbers = itertools.count()
        self._lock = threading.RLock()

    def info(self) -> dict[str, Any]:
        return {"Runtimes": {"runc": {}} | ({"nvidia": {}} if self.toolkit else {})}

    def images(self, name: str) -> list[str]:
        return [name]

    def ping(self) -> bool:
        return True

    def create_host_config(self, **options: Any) -> dict[str, Any]:
        from docker.types import HostConfig

        return dict(HostConfig(version="1.41", **options))

    def create_container(
        self,
        *,
        command: list[str],
        host_config: dict[str, Any],
        labels: dict[str, str],
        **_: Any,
    ) -> dict[str, str]:
        if command[0] != "nvidia-smi":
            self.on_create()
        with self._lock:
            # Random, as the engine's, so that ids say nothing of the order of creation.
            container = FakeContainer(secrets.token_hex(32), labels, host_config, command)
            self._containers[container.id] = container
        return {"Id": container.id}

    def containers(self, *, filters: dict[str, Any], **options: bool) -> list[dict[str, Any]]:
        wanted = filters["label"]
        with self._lock:
            return [
                {
                    "Id": container.id,
                    "Labels": dict(container.labels),
                    "State": container.state,
                    "Status": container.state,
                }
                for container in self._containers.values()
                if (options.get("all") or container.state == "running")
                and all_match([wanted] if isinstance(wanted, str) else wanted, container.labels)
            ]

    def add(self, gpus: list[str], *, state: str = "running", **labels: str) -> FakeContainer:
        """A container of another task with these GPUs."""
        given = {f"lung.{name}": value for name, value in labels.items()}
        given["lung.gpus"] = ",".join(gpus)
        host_config = {"DeviceRequests": [{"DeviceIDs": gpus}]}
        container = FakeContainer(f"{next(self._numbers):064d}", given, host_config, ["x"], state)
        self._containers[container.id] = container
        return container

    def start(self, container: str) -> None:
        with self._lock:
            item = self._found(container)
            if item.command[0] == "nvidia-smi":
                self._probe(item)
                return
            taken = {
                uuid
                for other in self._containers.values()
                if other.state == "running" and other is not item
                for uuid in other.devices
            }
            self.conflicts += taken & set(item.devices)
            item.state = "running"
            self.started.append(item)
        threading.Thread(target=self._run, args=[item], daemon=True).start()

    def _probe(self, item: FakeContainer) -> None:
        from docker.errors import APIError

        self.probes += 1
        if self.answer[0] < 0:
            raise APIError("500 Server Error", explanation=self.answer[1])

    def _run(self, item: FakeContainer) -> None:
        self.job(item)
        self.remove_container(item.id)

    def wait(self, container: str, timeout: float) -> dict[str, int]:
        return {"StatusCode": self.answer[0]}

    def logs(self, container: str) -> bytes:
        lines = [
            f"{number}, {gpu.uuid}, {gpu.name}, {gpu.used_mib}"
            for number, gpu in enumerate(self.gpus)
        ]
        return (self.answer[1] or "\n".join(lines)).encode()

    def remove_container(self, container: str, **_: Any) -> None:
        with self._lock:
            item = self._found(container)
            del self._containers[item.id]
        for end in item.output:
            end.close()
        died = {"Action": "die", "Actor": {"Attributes": {"exitCode": "0"}}}
        for events in item.events:
            for event in (died, {"Action": "destroy"}, None):
                events.queue.put(event)

    def stop(self, container: str, timeout: float) -> None:
        self._found(container)

    def attach_socket(self, container: str, params: dict[str, int]) -> _Socket:
        ours, theirs = socket.socketpair()
        self._found(container).output.append(ours)
        return _Socket(theirs.detach())

    def events(self, *, filters: dict[str, str], decode: bool) -> _Events:
        events = _Events()
        self._found(filters["container"]).events.append(events)
        return events

    def _found(self, container: str) -> FakeContainer:
        from docker.errors import NotFound

        if container not in self._containers:
            raise NotFound("no such container")
        return self._containers[container]

    @property
    def left(self) -> list[FakeContainer]:
        return list(self._containers.values())


def all_match(wanted: list[str], labels: dict[str, str]) -> bool:
    """Whether the labels have each of `name` or `name=value`."""
    pairs = [item.partition("=") for item in wanted]
    return all(name in labels and value in ("", labels[name]) for name, _, value in pairs)


def task(engine: GpuEngine, **options: Any) -> Any:
    """A ContainerOperator on this engine; by default `train` of the run `weekly`."""
    from lung.container_operator import ContainerOperator

    settings = {"task_id": "train", "network_mode": "none", "mem_limit": "1g"} | options
    operator = ContainerOperator(image=IMAGE, command=["x"], **settings)
    return on_engine(engine, operator)


def on_engine(engine: GpuEngine, operator: Any) -> Any:
    operator.hook = SimpleNamespace(api_client=engine, client_created=True)
    return operator


def run(operator: Any, run_id: str = "weekly") -> None:
    """The part of `execute` that needs no S3: the container, from its creation to its end."""
    task_context = context(operator)
    task_context["ti"].run_id = run_id
    operator._run(task_context, {})
