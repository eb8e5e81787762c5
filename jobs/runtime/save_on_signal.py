"""Saving at once when a job is told to stop, whatever it is computing at that moment."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator

from jobs.errors import InterruptedJobError, JobError

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def saving(save: Callable[[], None]) -> Iterator[None]:
    """Inside, SIGTERM and SIGINT make a thread call `save` and end the process with 75.

    Python runs a signal's handler between two steps of the main thread, and one step of a large
    network on a CPU lasts longer than the grace that a container is given. `save` finds the main
    thread anywhere, also waiting for ever for another rank.
    """
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    handlers = {number: signal.signal(number, _ignore) for number in SIGNALS}
    former = signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    thread = threading.Thread(target=_wait, args=(told, save), name="stopping", daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(former)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.close(tell)
        # One that is saving ends the process, also where the main thread fails meanwhile.
        thread.join()
        os.close(told)


def _ignore(number: int, frame: object) -> None:
    """For the main thread; set_wakeup_fd has told the other one."""


def _wait(told: int, save: Callable[[], None]) -> None:
    numbers = os.read(told, 1)
    if not numbers:
        return
    name = signal.Signals(numbers[0]).name
    try:
        save()
        log.error("stopped by %s: what is done is kept; start it again to go on", name)
    except JobError as error:
        log.error("stopped by %s; the last epoch's end is kept, as %s", name, error)
    except Exception:
        log.exception("stopped by %s; the last epoch's end is kept", name)
    finally:
        logging.shutdown()
        os._exit(InterruptedJobError.exit_code)
