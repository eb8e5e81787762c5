"""The Docker engine's client, as one job's container needs it.

DockerOperator has no parameters for these things, so its calls are completed on their way.

- The container has the fewest rights that jobs need.
- It hangs on a lifeline: its standard input, which only this process holds open and on which it
  beats. The job ends itself when that closes or falls silent, so also when this process is killed,
  or the engine is killed, which closes nothing.
- The engine removes it when it ends, so also when nobody is left to do so. It can then no longer be
  asked how it ended: the engine's events, listened to from before its start, tell.
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

PIDS_LIMIT = 4096
REMOVAL_SECONDS = 10
HTTP_CONFLICT = 409


class JobClient:
    """The client of one container; whatever is not defined here is as docker-py has it.

    `reason_to_stop` returns a text from the moment on that nothing is to be started.
    """

    def __init__(self, client: Any, reason_to_stop: Callable[[], str]) -> None:
        self._client = client
        self._reason_to_stop = reason_to_stop
        self._log: Any = None
        self._lifeline: Any = None
        self._events: Any = None
        self.exit_code = 0
        self.was_out_of_memory = False
        self.was_told_to_stop = False  # by anyone through the engine, or by the engine's own end

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
        }
        return self._client.create_host_config(**completed)

    def create_container(self, **options: Any) -> Any:
        return self._client.create_container(**options, stdin_open=True)

    def attach(self, container: str, **_: Any) -> Iterator[bytes]:
        """What the container says, in pieces, until it ends or `hang_up` is called."""
        self._log = self._client.attach_socket(container, {"stdout": 1, "stderr": 1, "stream": 1})
        return (data for _, data in frames_iter(self._log, tty=False))

    def last_words(self) -> Iterator[bytes]:
        """What the container said after `attach` was interrupted; soon or not at all."""
        patience = threading.Timer(REMOVAL_SECONDS, self.hang_up)
        patience.start()
        try:
            yield from (data for _, data in frames_iter(self._log, tty=False)) if self._log else ()
        finally:
            patience.cancel()

    def start(self, container: str) -> None:
        # A kill that comes while the container is created finds none to remove.
        if reason := self._reason_to_stop():
            raise AirflowException(reason)
        self._events = self._client.events(filters={"container": container}, decode=True)
        # Of its own: one TLS connection must not be read and written by two threads.
        self._lifeline = self._client.attach_socket(container, {"stdin": 1, "stream": 1})
        self._client.start(container)

    def wait(self, container: str) -> dict[str, int]:
        """{"StatusCode": exit code}, when the container has ended and is removed.

        Raises ConnectionError where the engine goes away before it has told.
        """
        has_ended = False
        # A removal that the engine cannot finish is not waited for without end.
        patience = threading.Timer(REMOVAL_SECONDS, self._events.close)
        for event in self._events:
            action = event["Action"]
            self.was_out_of_memory |= action == "oom"
            self.was_told_to_stop |= action == "kill"
            if action == "die":
                has_ended = True
                self.exit_code = int(event["Actor"]["Attributes"]["exitCode"])
                patience.start()
            elif action == "destroy":
                break
        patience.cancel()
        if not has_ended:
            raise ConnectionError("it hung up while the job ran")
        return {"StatusCode": self.exit_code}

    def beat(self) -> None:
        """Tell the job that this process is alive; OSError where the engine does not answer."""
        if self._lifeline:
            # A job that has ended listens no more; that is for `wait` to find.
            with suppress(OSError):
                getattr(self._lifeline, "_sock", self._lifeline).send(b"\n")
        self._client.ping()

    def remove(self, container: str) -> None:
        """Stop and remove a container, side by side with the engine, which may be ahead."""
        with suppress(NotFound):
            self._client.stop(container, timeout=STOP_GRACE_SECONDS)
            try:
                self._client.remove_container(container, v=True, force=True)
            except APIError as error:
                if error.status_code != HTTP_CONFLICT:
                    raise
                self._client.wait(container, timeout=REMOVAL_SECONDS, condition="removed")

    def hang_up(self) -> None:
        """Have `attach` and `wait` come to their end, though the engine may not answer."""
        with suppress(OSError):
            if self._log:
                getattr(self._log, "_sock", self._log).shutdown(socket.SHUT_RDWR)
            if self._events:
                self._events.close()

    def close(self) -> None:
        """Let go of the container; where it runs, it ends."""
        streams = (self._log, self._lifeline, self._events)
        # First, for a kill that comes now hangs up what is left here.
        self._log = self._lifeline = self._events = None
        for stream in filter(None, streams):
            stream._response.close()
            stream.close()
