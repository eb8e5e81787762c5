"""A DockerOperator that always stops and removes its container.

The provider's operator leaves a container running after a time-out, leaves a dead one behind, or
hides the error, depending on `auto_remove`. Here every way out of `execute` (success, failure,
time-out, kill) stops the container within a short grace and removes it. Where this process itself
is killed, the container's lifeline (`engine_client.py`) stops the job. The engine is asked for the
task's containers by label, so that a container whose id never arrived is found too. A container
that an earlier try left is removed before a new one starts.
"""

from __future__ import annotations

from functools import cached_property, partial
from typing import Any, cast

from airflow.providers.docker.exceptions import DockerContainerFailedException
from airflow.providers.docker.operators.docker import DockerOperator
from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowException, AirflowTaskTimeout
from docker.errors import APIError, DockerException
from docker.types import Mount
from requests.exceptions import RequestException

from lung.contract import LIFELINE, STOPPED, Ending, run_job
from lung.engine_client import JobClient
from lung.gpu_claim import GpuClaim
from lung.job_log import JobLog
from lung.supervision import supervised


class ContainerOperator(DockerOperator):
    """Runs one job in a container; returns the job's result. `environment` holds RESULT_URI.

    `gpus` is the container's share of the engine's GPUs, as `gpu_share` says; `cpu_limit` the cores
    that it may use at a time, 0 for no limit. `shard` is for the command's template, where the task
    is mapped over parts of the films.
    """

    template_fields = (*DockerOperator.template_fields, "mem_limit", "shm_size", "gpus", "shard")
    # Airflow would read an argument that ends with .sh or .env as a file's name.
    template_ext = ()

    def __init__(
        self,
        *,
        gpus: int | str = 0,
        cpu_limit: float = 0,
        shard: str = "1/1",
        **kwargs: Any,
    ) -> None:
        # An anonymous volume, not a tmpfs, whose downloads would count as memory.
        scratch = Mount(target="/tmp", source=None, type="volume")
        # DockerOperator removes nothing: the engine does, or `_remove_containers`.
        super().__init__(auto_remove="never", mount_tmp_dir=False, mounts=[scratch], **kwargs)
        self.gpus = gpus
        self.cpu_limit = cpu_limit
        self.shard = shard
        self._stop_reason = ""

    @cached_property
    def job_log(self) -> JobLog:
        return JobLog(self.log)

    @cached_property
    def cli(self) -> Any:
        client, stop_reason = self.hook.api_client, lambda: self._stop_reason
        claim = GpuClaim(client, str(self.gpus), stop_reason, self.log)
        return JobClient(client, stop_reason, self.job_log, claim=claim, cpus=self.cpu_limit)

    def execute(self, context: Context) -> Any:
        run = partial(self._run, context)
        return run_job(run, cast(list[str], self.command), self.environment["RESULT_URI"])

    def _run(self, context: Context, secrets: dict[str, str]) -> Ending:
        self._private_environment = secrets | LIFELINE
        labels = self._labels(context)
        client = self.cli
        try:
            # Without the label of the try: the containers of earlier tries too.
            self._remove({name: value for name, value in labels.items() if name != "lung.try"})
            self.labels = labels
            with supervised(self._send_heartbeat, self._stop):
                super().execute(context)
        except DockerContainerFailedException:
            return self._ending()
        except AirflowTaskTimeout:
            self._remove_containers()
            client.copy_remaining_output()
            raise
        except OSError as error:  # the base class of all errors of docker-py and requests
            raise self._engine_error(error) from error
        finally:
            self._remove_containers()
            client.close()
        return Ending(0)

    def on_kill(self) -> None:
        self._stop(STOPPED)

    def _stop(self, reason: str) -> None:
        self._stop_reason = reason
        self._remove_containers()
        if self.hook.client_created:
            self.cli.disconnect()

    def _send_heartbeat(self) -> None:
        try:
            self.cli.send_heartbeat()
        except OSError as error:
            raise self._engine_error(error) from error

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

    def _ending(self) -> Ending:
        if self._stop_reason:
            raise AirflowException(self._stop_reason)
        limit = str(self.mem_limit or "the machine's memory") if self.cli.was_out_of_memory else ""
        return Ending(
            self.cli.exit_code,
            self.job_log.last_line,
            memory_limit=limit,
            was_stopped=self.cli.was_stopped,
        )

    def _engine_error(self, error: OSError) -> AirflowException:
        """The task's error where the engine refused the container, or stopped answering."""
        if self._stop_reason:
            return AirflowException(self._stop_reason)
        if isinstance(error, APIError):
            reason = error.explanation or error
            return AirflowException(f"The engine did not run {self.image}: {reason}")
        return AirflowException(
            f"The engine at {self.docker_url} went away: {error}. Its jobs end themselves within a "
            "minute; the next try resumes from the saved state"
        )

    def _remove_containers(self) -> None:
        """Remove this try's containers; only log a failure, which would hide the task's error."""
        try:
            if isinstance(self.labels, dict):
                self._remove(self.labels)
        except (AirflowException, DockerException, RequestException) as error:
            self.log.warning("A container may be left, labelled %s: %s", self.labels, error)

    def _remove(self, labels: dict[str, str]) -> None:
        """Stop and remove the containers that have all of these labels."""
        filters = {"label": [f"{name}={value}" for name, value in labels.items()]}
        for container in self.cli.containers(all=True, filters=filters):
            self.cli.remove(container["Id"])
            # After the removal: logging fails where the supervisor, which writes the log, is dead.
            self.log.info("Removed container %s (%s)", container["Id"][:12], container["Status"])
