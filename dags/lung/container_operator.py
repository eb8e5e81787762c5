"""A DockerOperator that owns the end of its container.

The stock operator leaves a container running after a time-out, or a dead one behind, or hides the
error, depending on `auto_remove`. Here the base is told "never" and every way out of `execute`
(success, failure, time-out, kill) stops the container within a short grace and removes it. Which
containers are this task's is asked of the engine, by label, so none is missed because an id was
not yet known; one left by an earlier try is removed before a new one starts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cached_property, partial
from typing import Any

from airflow.providers.docker.exceptions import DockerContainerFailedException
from airflow.providers.docker.operators.docker import DockerOperator
from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowException
from docker.errors import APIError, DockerException, NotFound
from docker.types import Mount
from docker.utils.socket import frames_iter
from requests.exceptions import RequestException

from lung.contract import STOP_GRACE_SECONDS, STOPPED, Ending, carry_out

PIDS_LIMIT = 4096


class HardenedClient:
    """The engine's client, but every container it creates has the fewest rights that jobs need.

    DockerOperator has no parameters for these, so its call is completed on the way to the engine.
    """

    def __init__(self, client: Any, is_stopped: Callable[[], bool]) -> None:
        self._client = client
        self._is_stopped = is_stopped
        self._stream: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def create_host_config(self, **options: Any) -> Any:
        return self._client.create_host_config(
            **options,
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            pids_limit=PIDS_LIMIT,
            init=True,
            # Without it a container may swap as much again before it is killed for memory.
            memswap_limit=options["mem_limit"],
        )

    def attach(self, container: str, **_: Any) -> Iterator[bytes]:
        """What the container says, in pieces, until it ends or `detach` is called."""
        self._stream = self._client.attach_socket(
            container, {"stdout": 1, "stderr": 1, "stream": 1}
        )
        return (data for _, data in frames_iter(self._stream, tty=False))

    def detach(self) -> None:
        if self._stream:
            self._stream._response.close()
            self._stream.close()

    def start(self, container: str) -> None:
        # A kill that comes while the container is created finds none to remove.
        if self._is_stopped():
            raise AirflowException(STOPPED)
        self._client.start(container)


class ContainerOperator(DockerOperator):
    """Runs one job in a container; returns the job's result. `environment` holds RESULT_URI.

    `shard` is for the command's template, where the task is mapped over parts of the films.
    """

    template_fields = (*DockerOperator.template_fields, "mem_limit", "shm_size", "shard")
    # A command's argument that ends with .sh or .env is an argument, not a file to be read.
    template_ext = ()

    def __init__(self, *, shard: str = "1/1", **kwargs: Any) -> None:
        # A volume of the container's own, not a tmpfs: downloads would count as memory.
        scratch = Mount(target="/tmp", source=None, type="volume")
        super().__init__(auto_remove="never", mount_tmp_dir=False, mounts=[scratch], **kwargs)
        self.shard = shard
        self._stopped = False

    @cached_property
    def cli(self) -> Any:
        return HardenedClient(self.hook.api_client, lambda: self._stopped)

    def execute(self, context: Context) -> Any:
        return carry_out(partial(self._run, context), self.environment["RESULT_URI"])

    def _run(self, context: Context, secrets: dict[str, str]) -> Ending:
        self._private_environment = secrets
        labels = self._labels(context)
        self._remove({name: value for name, value in labels.items() if name != "lung.try"})
        self.labels = labels
        try:
            super().execute(context)
        except (APIError, DockerContainerFailedException) as error:
            return self._ending(error)
        finally:
            self._end()
            self.cli.detach()
        return Ending(0)

    def on_kill(self) -> None:
        self._stopped = True
        self._end()

    def _labels(self, context: Context) -> dict[str, str]:
        instance = context["ti"]
        return {
            # Two Airflows on one engine may have runs of the same name; their networks differ.
            "lung.network": str(self.network_mode),
            "lung.dag": instance.dag_id,
            "lung.run": instance.run_id,
            "lung.task": instance.task_id,
            "lung.map_index": str(instance.map_index),
            "lung.try": str(instance.try_number),
        }

    def _ending(self, error: APIError | DockerContainerFailedException) -> Ending:
        """How the container ended; `error` itself where the engine would not run it."""
        if self._stopped:
            raise AirflowException(STOPPED)
        if isinstance(error, APIError):
            raise AirflowException(
                f"The engine did not run {self.image}: {error.explanation or error}"
            ) from error
        state = self.cli.inspect_container(self.container["Id"])["State"]
        said = [str(line) for line in error.logs or () if line]
        limit = str(self.mem_limit or "the machine's memory") if state["OOMKilled"] else ""
        return Ending(state["ExitCode"], said[-1] if said else "", limit)

    def _end(self) -> None:
        """Remove this try's containers; a failure is logged, as the error shown is the task's."""
        try:
            if isinstance(self.labels, dict):
                self._remove(self.labels)
        except (AirflowException, DockerException, RequestException) as error:
            self.log.warning("A container may be left, labelled %s: %s", self.labels, error)

    def _remove(self, labels: dict[str, str]) -> None:
        """Stop and remove the containers that have all of these labels."""
        wanted = {"label": [f"{name}={value}" for name, value in labels.items()]}
        for found in self.cli.containers(all=True, filters=wanted):
            self.log.info("Removing container %s (%s)", found["Id"][:12], found["Status"])
            with suppress(NotFound):
                self.cli.stop(found["Id"], timeout=STOP_GRACE_SECONDS)
                self.cli.remove_container(found["Id"], v=True, force=True)
