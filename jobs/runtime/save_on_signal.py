"""Save a job's state at once when it is stopped, whatever it is computing at that moment."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator

from jobs.errors import InterruptedJobError, JobError, ServiceUnavailableError

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def saving(save: Callable[[], None]) -> Iterator[None]:
    """Inside, SIGTERM and SIGINT make a thread call `save` and end the process with 75, or
    with 69 where S3 does not take the state.

    Python runs signal handlers in the main thread, between two of its steps, and one step of a
    large network on a CPU lasts longer than a container's grace. The main thread may be anywhere
    when `save` is called, even blocked in waiting for another rank.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    handlers = {number: signal.signal(number, _ignore) for number in SIGNALS}
    # Python writes the number of each signal here, even while the main thread computes.
    former_fd = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    thread = threading.Thread(target=_wait, args=(reader, save), name="stopping", daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(former_fd)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        # End of file ends the thread, unless it is saving: then it ends the process, also where the
        # main thread fails meanwhile.
        os.close(writer)
        thread.join()
        os.close(reader)


def _ignore(number: int, frame: object) -> None:
    """Do nothing in the main thread; the waiting thread reads the number of the signal."""


def _wait(reader: int, save: Callable[[], None]) -> None:
    """Wait for a signal's number, save, and end the process; return at end of file."""
    numbers = os.read(reader, 1)
    if not numbers:
        return
    name = signal.Signals(numbers[0]).name
    code = InterruptedJobError.exit_code
    try:
        save()
        log.error("stopped by %s: the state is saved; start the job again to resume", name)
    except JobError as error:
        log.error("stopped by %s: not saved, resumes at the last epoch's end: %s", name, error)
        if isinstance(error, ServiceUnavailableError):
            code = error.exit_code
    except Exception:
        log.exception("stopped by %s: not saved, resumes at the last epoch's end", name)
    finally:
        logging.shutdown()
        os._exit(code)
