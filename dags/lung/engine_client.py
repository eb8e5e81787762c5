"""The Docker engine's client for the container of one job.

DockerOperator has no parameters for what follows, so this client completes its calls.

- The container gets the fewest rights that jobs need, a limit of cores, and GPUs of its own.
- It hangs on a lifeline: its standard input, which only this process holds open, and to which it
  sends heartbeats. The job ends itself when the input closes or falls silent. That covers a kill of
  this process, and a kill of the engine, which closes nothing.
- The engine removes it when it ends, also where no process is left to do so. A removed container
  cannot be inspected: its exit code comes from the engine's events, subscribed to before its start.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from airflow.sdk.exceptions import AirflowException
from docker.errors import APIError, NotFound
from docker.utils.socket import frames_iter

from lung.contract import STOP_GRACE_SECONDS
from lung.gpu_claim import GpuClaim
from lung.job_log import JobLog
from lung.visible_text import visible_lines

PIDS_LIMIT = 4096
REMOVAL_SECONDS = 10
HTTP_CONFLICT = 409


class JobClient:
    """The client of one container; passes all other calls on to docker-py's APIClient.

    `stop_reason` returns "" while a container may start, and otherwise why it must not. The
    container's output goes to `job_log`. `cpus` is the number of cores that the container may use
    at a time, 0 for no limit.
    """

    def __init__(
        self,
        client: Any,
        stop_reason: Callable[[], str],
        job_log: JobLog,
        *,
        claim: GpuClaim,
        cpus: float = 0,
    ) -> None:
        self._client = client
        self._stop_reason = stop_reason
        self._job_log = job_log
        self._claim = claim
        self._cpus = cpus
        self._log: Any = None
        self._lifeline: Any = None
        self._events: Any = None
        self.exit_code = 0
        self.was_out_of_memory = False
        self.was_stopped = False  # by a client of the engine, or by the engine's own stop

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def create_host_config(self, **options: Any) -> Any:
        completed = options | {
            "auto_remove": True,
            "read_only": True,
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges"],
            "pids_limit": PIDS_LIMIT,
            "init": True,
            # Without it a container may swap as much again before it is killed for memory.
            "memswap_limit": options["mem_limit"],
            "nano_cpus": round(self._cpus * 1e9),
        }
        return self._client.create_host_config(**completed)

    def create_container(self, **options: Any) -> Any:
        return self._claim.create_container(**options, stdin_open=True)

    def attach(self, container: str, **_: Any) -> Iterator[bytes]:
        """An iterator that logs the container's output until it ends or `disconnect` is called.

        It yields nothing: DockerOperator would log it once more, all at one level.
        """
        self._log = self._client.attach_socket(container, {"stdout": 1, "stderr": 1, "stream": 1})
        return self._copied_output()

    def copy_remaining_output(self) -> None:
        """Log the output after an interrupted `attach`, for at most REMOVAL_SECONDS."""
        timer = threading.Timer(REMOVAL_SECONDS, self.disconnect)
        timer.start()
        try:
            if self._log:
                list(self._copied_output())
        finally:
            timer.cancel()

    def _copied_output(self) -> Iterator[bytes]:
        for line in visible_lines(data for _, data in frames_iter(self._log, tty=False)):
            self._job_log.write(line.decode())
        yield from ()

    def start(self, container: str) -> None:
        # A kill during the container's creation found no container to remove.
        if reason := self._stop_reason():
            raise AirflowException(reason)
        self._events = self._client.events(filters={"container": container}, decode=True)
        # A second connection: one TLS connection must not be read and written by two threads.
        self._lifeline = self._client.attach_socket(container, {"stdin": 1, "stream": 1})
        self._client.start(container)

    def wait(self, container: str) -> dict[str, int]:
        """{"StatusCode": exit code}, once the container has ended and is removed.

        Raises ConnectionError where the engine goes away first.
        """
        has_ended = False
        # Bounds the wait for a removal that the engine cannot finish.
        timer = threading.Timer(REMOVAL_SECONDS, self._events.close)
        for event in self._events:
            action = event["Action"]
            self.was_out_of_memory |= action == "oom"
            self.was_stopped |= action == "kill"
            if action == "die":
                has_ended = True
                self.exit_code = int(event["Actor"]["Attributes"]["exitCode"])
                timer.start()
            elif action == "destroy":
                break
        timer.cancel()
        if not has_ended:
            raise ConnectionError("it hung up while the job ran")
        return {"StatusCode": self.exit_code}

    def send_heartbeat(self) -> None:
        """Write to the job's lifeline; OSError where the engine does not answer."""
        if self._lifeline:
            # The write fails once the job has ended, which `wait` reports.
            with suppress(OSError):
                getattr(self._lifeline, "_sock", self._lifeline).send(b"\n")
        self._client.ping()

    def remove(self, container: str) -> None:
        """Stop and remove a container; the engine may remove it at the same time."""
        with suppress(NotFound):
            self._client.stop(container, timeout=STOP_GRACE_SECONDS)
            try:
                self._client.remove_container(container, v=True, force=True)
            except APIError as error:
                if error.status_code != HTTP_CONFLICT:
                    raise
                self._client.wait(container, timeout=REMOVAL_SECONDS, condition="removed")

    def disconnect(self) -> None:
        """End `attach` and `wait`, also where the engine does not answer."""
        with suppress(OSError):
            if self._log:
                getattr(self._log, "_sock", self._log).shutdown(socket.SHUT_RDWR)
            if self._events:
                self._events.close()

    def close(self) -> None:
        """Close the connections to the container; a job that still runs ends itself."""
        streams = (self._log, self._lifeline, self._events)
        # Cleared first: a kill during the loop calls `disconnect` on these.
        self._log = self._lifeline = self._events = None
        for stream in filter(None, streams):
            stream._response.close()
            stream.close()
