"""Ends a job with its task, whichever process above the job dies first.

    scheduler or worker ──forks──▶ supervisor ──forks──▶ task's process ──heartbeats──▶ job

A task's process does not notice that its supervisor was killed, nor a supervisor that the scheduler
or the Celery worker was: Airflow then starts the task again beside the old one. A thread here
checks both. It also sends the job its heartbeats; without them the job ends itself.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import psutil
from airflow.sdk.exceptions import AirflowException

# The job ends itself after 40 s without a heartbeat (`jobs/runtime/lifeline.py`).
HEARTBEAT_SECONDS = 5.0
ABOVE = ("supervisor", "scheduler or worker")


@contextmanager
def supervised(send_heartbeat: Callable[[], None], stop: Callable[[str], None]) -> Iterator[None]:
    """Send heartbeats while the block runs; call `stop(reason)` once a process above is gone.

    `send_heartbeat` raises AirflowException where the job cannot be reached: `stop` is called with
    its text as the reason.
    """
    over = threading.Event()
    line = ancestry(psutil.Process())

    def watch() -> None:
        while not over.wait(HEARTBEAT_SECONDS):
            try:
                check(line)
                send_heartbeat()
            except AirflowException as error:
                stop(str(error))
                return

    watcher = threading.Thread(target=watch, name="supervision", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def ancestry(process: psutil.Process) -> list[psutil.Process]:
    """[task's process, its supervisor, the scheduler or worker]; [process] without a supervisor.

    `dag.test()` runs tasks in its caller's process, which may outlive the process that started it.
    """
    # Imported here: parsing a DAG needs neither.
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.comms import CommsDecoder

    if not isinstance(getattr(task_runner, "SUPERVISOR_COMMS", None), CommsDecoder):
        return [process]
    line = [process, process.parent()]
    with suppress(psutil.Error):
        above = line[-1].parent()
        # Airflow's executor runs the same Python; a shell or a container's init does not.
        if above and above.exe() == process.exe():
            line.append(above)
    return line


def check(line: list[psutil.Process]) -> None:
    """Raise AirflowException where a process is no longer the child of the next in the line."""
    for name, child, parent in zip(ABOVE, line, line[1:], strict=False):
        # A child that is gone itself was reported as the parent of the process before it.
        if child.ppid() != parent.pid:
            raise AirflowException(
                f"The {name} of this task (process {parent.pid}) is gone, and so its job was ended"
            )
