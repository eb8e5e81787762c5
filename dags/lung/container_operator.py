"""A DockerOperator that owns the end of its container.

The stock operator leaves a container running after a time-out, or a dead one behind, or hides the
error, depending on `auto_remove`. Here every way out of `execute` (success, failure, time-out,
kill) stops the container within a short grace and removes it; where this process itself is killed,
the container's lifeline (`engine_client.py`) does. Which containers are this task's is asked of the
engine, by label, so none is missed because an id was not yet known; one left by an earlier try is
removed before a new one starts.
"""

from __future__ import annotations

import time
from functools import cached_property, partial
from typing import Any

from airflow.providers.docker.exceptions import DockerContainerFailedException
from airflow.providers.docker.operators.docker import DockerOperator, fetch_logs
from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowException, AirflowTaskTimeout
from docker.errors import APIError, DockerException
from docker.types import DeviceRequest, Mount
from requests.exceptions import RequestException

from lung.contract import LIFELINE, STOPPED, Ending, carry_out
from lung.engine_client import JobClient
from lung.supervision import supervised

GPU_LABEL = "lung.gpus"
# By then a container whose task is gone has ended itself.
GPU_WAIT_SECONDS = 60


class ContainerOperator(DockerOperator):
    """Runs one job in a container; returns the job's result. `environment` holds RESULT_URI.

    `gpus` is how many the container is given, a number or its text. `shard` is for the command's
    template, where the task is mapped over parts of the films.
    """

    template_fields = (
        *DockerOperator.template_fields,
        *("mem_limit", "shm_size", "gpus", "shard"),
    )
    # A command's argument that ends with .sh or .env is an argument, not a file to be read.
    template_ext = ()

    def __init__(self, *, gpus: int | str = 0, shard: str = "1/1", **kwargs: Any) -> None:
        # A volume of the container's own, not a tmpfs: downloads would count as memory.
        scratch = Mount(target="/tmp", source=None, type="volume")
        # The base removes nothing: the engine does, or `_end`.
        super().__init__(auto_remove="never", mount_tmp_dir=False, mounts=[scratch], **kwargs)
        self.gpus = gpus
        self.shard = shard
        self._stopped = ""  # the reason, once there is one

    @cached_property
    def cli(self) -> Any:
        return JobClient(self.hook.api_client, lambda: self._stopped)

    def execute(self, context: Context) -> Any:
        return carry_out(partial(self._run, context), self.environment["RESULT_URI"])

    def _run(self, context: Context, secrets: dict[str, str]) -> Ending:
        self._private_environment = secrets | LIFELINE
        labels = self._labels(context)
        client = self.cli
        try:
            self._remove({name: value for name, value in labels.items() if name != "lung.try"})
            self.labels = labels
            with supervised(self._beat, self._stop):
                if count := int(self.gpus):
                    self.labels = labels | {GPU_LABEL: str(count)}
                    self.device_requests = [DeviceRequest(count=count, capabilities=[["gpu"]])]
                    self._wait_for_gpus()
                super().execute(context)
        except DockerContainerFailedException as error:
            return self._ending(error)
        except AirflowTaskTimeout:
            self._end()
            fetch_logs(client.last_words(), self.log)
            raise
        except OSError as error:  # all that the client raises
            raise self._refusal(error) from error
        finally:
            self._end()
            client.close()
        return Ending(0)

    def on_kill(self) -> None:
        self._stop(STOPPED)

    def _stop(self, reason: str) -> None:
        self._stopped = reason
        self._end()
        if self.hook.client_created:
            self.cli.hang_up()

    def _beat(self) -> None:
        try:
            self.cli.beat()
        except OSError as error:
            raise self._refusal(error) from error

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

    def _wait_for_gpus(self) -> None:
        """Return as soon as no container has GPUs, as the engine would give the same ones twice.

        One of another run, whose task was just marked failed, may still be saving its state.
        """
        deadline = time.monotonic() + GPU_WAIT_SECONDS
        while others := self.cli.containers(filters={"label": GPU_LABEL}):
            theirs = others[0]["Labels"]
            holder = f"{theirs.get('lung.task')} of the run {theirs.get('lung.run')}"
            if self._stopped or time.monotonic() > deadline:
                taken = f"The GPUs are taken by {holder}: give the pool of these tasks one slot"
                raise AirflowException(self._stopped or taken)
            self.log.info("Waiting for the GPUs, which %s still has", holder)
            time.sleep(1)

    def _ending(self, error: DockerContainerFailedException) -> Ending:
        if self._stopped:
            raise AirflowException(self._stopped)
        said = [str(line) for line in error.logs or () if line]
        limit = str(self.mem_limit or "the machine's memory") if self.cli.was_out_of_memory else ""
        return Ending(
            self.cli.exit_code,
            said[-1] if said else "",
            memory_limit=limit,
            was_told_to_stop=self.cli.was_told_to_stop,
        )

    def _refusal(self, error: OSError) -> AirflowException:
        """What to say where the engine would not run the container, or went away."""
        if self._stopped:
            return AirflowException(self._stopped)
        if isinstance(error, APIError):
            said = error.explanation or error
            return AirflowException(f"The engine did not run {self.image}: {said}")
        return AirflowException(
            f"The engine at {self.docker_url} went away: {error}. What ran there ends itself within"
            " a minute; the next try goes on from what it saved"
        )

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
            self.cli.remove(found["Id"])
            # Not before: to log fails where the supervisor, which writes the log, was killed.
            self.log.info("Removed container %s (%s)", found["Id"][:12], found["Status"])
