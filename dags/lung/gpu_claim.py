"""GPUs for the container of one job, which no other container has.

An engine gives the same GPU to any number of containers. So the tasks of all Airflows on one engine
share its GPUs by this rule: a container holds the GPUs that its label `lung.gpus` lists, from its
creation to its removal. A task creates its container with GPUs that look free, looks again, and
starts it only if no other container holds one of them. Of two tasks that chose at the same moment
at least one sees the other, as both create before they look: the container with the lower id
stays, the other is removed and its task chooses anew.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from airflow.sdk.exceptions import AirflowException
from docker.errors import NotFound
from docker.types import DeviceRequest

from lung.engine_gpus import has_toolkit, offered_gpus
from lung.gpu_share import ALL
from lung.gpus import Gpu, needed, numbers

GPU_LABEL = "lung.gpus"
ENDED = ("exited", "dead", "removing")
POLL_SECONDS = 1.0
# How long a created container waits for the end of a claim that it wins.
CLAIM_SECONDS = 10.0
# By then the lifeline has stopped a job whose task is gone (40 s of silence, 10 s of grace), and a
# container that was not started has lost its task.
ENDING_SECONDS = 60.0
# Between two looks at the memory of GPUs that other programs have.
LOOK_SECONDS = 15.0
# Between two lines of the log while nothing changes.
LOG_SECONDS = 600.0


@dataclass(frozen=True)
class Holder:
    """A container that holds GPUs, by their UUIDs. `name`: its task and run."""

    id: str
    gpus: frozenset[str]
    name: str
    has_started: bool


class GpuClaim:
    """Creates the container of one job with the GPUs that it is to have.

    Args:
        client: docker-py's APIClient.
        share: a number, "any" or "all", as `gpu_share` says.
        stop_reason: returns "" while the task runs, and otherwise why it must end.
        log: the task's logger.
    """

    def __init__(self, client: Any, share: str, stop_reason: Callable[[], str], log: Any) -> None:
        self._client = client
        self._share = share
        self._stop_reason = stop_reason
        self._log = log
        # When each container that has not started was first seen.
        self._first_seen: dict[str, float] = {}

    def create_container(self, **options: Any) -> Any:
        """docker-py's `create_container`, with GPUs; waits until enough of them are free.

        A live job of another task may hold them for hours: the limit is the task's own time limit.
        Raises AirflowFailException where the engine has fewer GPUs than the task needs.
        """
        if self._share == "0":
            return self._client.create_container(**options)
        while gpus := self._wait_for_free(options["image"], options["labels"]):
            container = self._client.create_container(**_with_gpus(options, gpus))
            if self._is_alone(container["Id"], gpus):
                self._log.info("The job has %s (%s)", numbers(gpus), gpus[0].name)
                return container
            self._remove(container["Id"])
        return self._client.create_container(**options)

    def _wait_for_free(self, image: str, labels: dict[str, str]) -> list[Gpu]:
        """The GPUs to take, once enough are free; [] where the job is to compute on the CPU."""
        waiting = _Waiting(self._log)
        while True:
            # Before the look at their memory: a container that ends in between still counts.
            holders = self._holders()
            gpus = self._offered(image, labels)
            count = needed(self._share, gpus)
            held = {uuid for holder in holders for uuid in holder.gpus}
            unheld = [gpu for gpu in gpus if gpu.uuid not in held]
            free = [gpu for gpu in unheld if gpu.is_idle]
            if len(free) >= count:
                return free if self._share == ALL else free[:count]
            report = partial(waiting.report, count, len(free), gpus, holders)
            self._wait_for_change(holders, report, looks_again=len(unheld) >= count)

    def _offered(self, image: str, labels: dict[str, str]) -> list[Gpu]:
        # A machine without NVIDIA's toolkit is spared the look, unless GPUs are demanded.
        if not self._share.isdecimal() and not has_toolkit(self._client.info()):
            return []
        try:
            return offered_gpus(self._client, image, labels)
        except AirflowException as error:
            raise AirflowException(self._stop_reason() or str(error)) from error

    def _holders(self) -> list[Holder]:
        """The containers that hold GPUs, of every Airflow on this engine."""
        containers = self._client.containers(all=True, filters={"label": GPU_LABEL})
        return [_holder(item) for item in containers if item["State"] not in ENDED]

    def _is_alone(self, container: str, gpus: list[Gpu]) -> bool:
        """Whether no other container holds a GPU of this created one."""
        uuids = {gpu.uuid for gpu in gpus}
        deadline = time.monotonic() + CLAIM_SECONDS
        while rivals := [
            holder for holder in self._holders() if holder.id != container and uuids & holder.gpus
        ]:
            is_lost = any(rival.has_started or rival.id < container for rival in rivals)
            if is_lost or time.monotonic() > deadline:
                return False
            self._pause()  # the rivals see this container and remove theirs
        return True

    def _wait_for_change(
        self, holders: list[Holder], report: Callable[[], None], *, looks_again: bool
    ) -> None:
        """Return once the holders change; with `looks_again` also after LOOK_SECONDS.

        Only the GPUs' memory tells when another program has left them.
        """
        deadline = time.monotonic() + (LOOK_SECONDS if looks_again else math.inf)
        while time.monotonic() < deadline and set(self._holders()) == set(holders):
            report()
            self._remove_abandoned(holders)
            self._pause()

    def _remove_abandoned(self, holders: list[Holder]) -> None:
        """Remove the containers that were created but never started: their tasks are gone."""
        now = time.monotonic()
        for holder in holders:
            if holder.has_started:
                continue
            if now - self._first_seen.setdefault(holder.id, now) > ENDING_SECONDS:
                self._remove(holder.id)
                self._log.warning("Removed a container of %s that was never started", holder.name)

    def _remove(self, container: str) -> None:
        with suppress(NotFound):
            self._client.remove_container(container, v=True, force=True)

    def _pause(self) -> None:
        """Wait a moment; raises AirflowException where the task must end."""
        if reason := self._stop_reason():
            raise AirflowException(reason)
        time.sleep(POLL_SECONDS)


class _Waiting:
    """Logs who holds the GPUs that a task waits for, when that changes and every ten minutes."""

    def __init__(self, log: Any) -> None:
        self._log = log
        self._holders: set[str] = set()
        self._since = self._logged = 0.0
        self._text = ""

    def report(self, count: int, free: int, gpus: list[Gpu], holders: list[Holder]) -> None:
        now = time.monotonic()
        names = {holder.id for holder in holders}
        if names != self._holders or not self._since:
            self._holders, self._since = names, now
        if holders and now - self._since < ENDING_SECONDS:
            outlook = "A job whose task was killed ends within a minute"
        else:
            outlook = "This task goes on waiting, up to its time limit"
        text = f"Waiting for {count} of {len(gpus)} GPUs, {free} free. {_in_use(gpus, holders)}"
        text += outlook
        if text != self._text or now - self._logged > LOG_SECONDS:
            self._text, self._logged = text, now
            self._log.info("%s", text)


def _in_use(gpus: list[Gpu], holders: list[Holder]) -> str:
    """Who holds which GPU, a sentence for each."""
    in_use: dict[str, list[Gpu]] = {}
    for gpu in gpus:
        names = [holder.name for holder in holders if gpu.uuid in holder.gpus]
        if not names and not gpu.is_idle:
            names = ["programs other than the jobs of these DAGs"]
        for name in names:
            in_use.setdefault(name, []).append(gpu)
    return "".join(f"{numbers(of_name)}: {name}. " for name, of_name in in_use.items())


def _with_gpus(options: dict[str, Any], gpus: list[Gpu]) -> dict[str, Any]:
    """The options of `create_container` with these GPUs and the label that claims them."""
    uuids = [gpu.uuid for gpu in gpus]
    request = DeviceRequest(device_ids=uuids, capabilities=[["gpu"]])
    return options | {
        "labels": options["labels"] | {GPU_LABEL: ",".join(uuids)},
        "host_config": options["host_config"] | {"DeviceRequests": [request]},
    }


def _holder(item: dict[str, Any]) -> Holder:
    labels = item["Labels"]
    return Holder(
        id=item["Id"],
        gpus=frozenset(labels[GPU_LABEL].split(",")),
        name=f"{labels.get('lung.task')} of the run {labels.get('lung.run')}",
        has_started=item["State"] != "created",
    )
