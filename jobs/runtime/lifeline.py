"""Ends a job whose Airflow task was killed, or lost its connection to the job's machine.

The task holds the job's standard input open and writes to it every few seconds. End of file means
that the task's process is gone. Silence means that the connection is lost: a killed Docker engine,
for one, leaves the input open.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import threading
import time

from jobs.errors import InterruptedJobError

log = logging.getLogger(__name__)

VARIABLE = "LUNG_LIFELINE"
# Silence and grace together: a job ends less than a minute after its task.
SILENCE_SECONDS = 40.0
GRACE_SECONDS = 10.0


def hold() -> None:
    """Where LUNG_LIFELINE is "stdin", watch standard input from a thread; else do nothing.

    When the input ends or falls silent, the job gets SIGTERM, saves its state and exits with 75; a
    job that is still running after a grace is ended with the same code.
    """
    if os.environ.get(VARIABLE) == "stdin":
        threading.Thread(target=_watch, name="lifeline", daemon=True).start()


def _watch() -> None:
    while readable := select.select([0], [], [], SILENCE_SECONDS)[0]:
        if not os.read(0, 4096):
            break
    log.error(
        "the task that started this job %s: saving the state and exiting",
        "is gone" if readable else f"has been silent for {SILENCE_SECONDS:g} s",
    )
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os._exit(InterruptedJobError.exit_code)
