"""Ends a job whose task is gone: killed, or cut off from the machine on which the job runs.

The task holds the job's standard input open and writes to it every few seconds. Its end of file
says that the task's process is gone; silence says that nothing of it arrives any more, as when the
Docker engine in between was killed, which closes nothing.
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
# With the grace, a job outlives its task by less than a minute.
SILENCE_SECONDS = 40.0
GRACE_SECONDS = 10.0


def hold() -> None:
    """Watch standard input from a thread where LUNG_LIFELINE is "stdin"; else do nothing.

    Once it ends, the job gets SIGTERM, saves its state and leaves with 75; what has not left after
    a grace is ended with the same code. Ranks leave with their launcher, which is the one to watch.
    """
    if os.environ.get(VARIABLE) == "stdin" and "RANK" not in os.environ:
        threading.Thread(target=_watch, name="lifeline", daemon=True).start()


def _watch() -> None:
    while heard := select.select([0], [], [], SILENCE_SECONDS)[0]:
        if not os.read(0, 4096):
            break
    log.error(
        "the task that started this job %s: saving and leaving",
        "is gone" if heard else f"has been silent for {SILENCE_SECONDS:g} s",
    )
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os._exit(InterruptedJobError.exit_code)
