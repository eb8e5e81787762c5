"""Sees to it that a job ends with its task, whichever of the two dies first and however.

    scheduler or worker ──forks──▶ supervisor ──forks──▶ the task's process ──beats──▶ its job

A task's process does not notice by itself that its supervisor was killed, and a supervisor not
that the scheduler or the Celery worker was: Airflow then starts the task again beside it. So a
thread here looks for both. It also beats for the job, which ends itself when the beats stop.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import psutil
from airflow.sdk.exceptions import AirflowException

# The job gives up after 40 s without one (`jobs/runtime/lifeline.py`).
BEAT_SECONDS = 5.0
ABOVE = ("supervisor", "scheduler or worker")


@contextmanager
def supervised(beat: Callable[[], None], stop: Callable[[str], None]) -> Iterator[None]:
    """Beat while the block runs; `stop(reason)` once a process above is gone or a beat raises.

    `beat` raises AirflowException where the job is out of reach; its text is then the reason.
    """
    over = threading.Event()
    line = line_above(psutil.Process())

    def watch() -> None:
        while not over.wait(BEAT_SECONDS):
            try:
                check(line)
                beat()
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


def line_above(process: psutil.Process) -> list[psutil.Process]:
    """A task's process, its supervisor and what forked that; just itself where nothing supervises.

    `dag.test()` runs tasks in the process that calls it, which may outlive whatever started it.
    """
    # Here and not above: where a DAG is parsed, neither is needed.
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.comms import CommsDecoder

    if not isinstance(getattr(task_runner, "SUPERVISOR_COMMS", None), CommsDecoder):
        return [process]
    line = [process, process.parent()]
    with suppress(psutil.Error):
        above = line[-1].parent()
        # Only what runs Airflow's Python: a shell or a container's init is not of the executor.
        if above and above.exe() == process.exe():
            line.append(above)
    return line


def check(line: list[psutil.Process]) -> None:
    """Raises AirflowException where a process is no longer the child of the next in the line."""
    for name, child, parent in zip(ABOVE, line, line[1:], strict=False):
        # A child whose own process is gone is the parent of the one before, which was told first.
        if child.ppid() != parent.pid:
            raise AirflowException(
                f"The {name} of this task (process {parent.pid}) is gone, and so its job was ended"
            )
