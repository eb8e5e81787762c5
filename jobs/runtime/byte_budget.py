"""A bound on the bytes that threads hold at once, whatever their number."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator

from jobs.imaging.decode import ImageError
from jobs.runtime.memory import job_memory

# Of the job's memory, for films that are decoded or drawn; the rest is for the network and files.
FILMS_SHARE = 0.25
# Of the job's memory, for one film: a larger one is refused, since it could end the job.
FILM_SHARE = 0.5


class ByteBudget:
    """Lets threads hold at most `limit` bytes together; a larger request waits to be alone."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken = 0
        self._freed = threading.Condition()

    @contextlib.contextmanager
    def taking(self, count: int) -> Iterator[None]:
        """Wait until `count` bytes are free, and hold them while the block runs."""
        with self._freed:
            self._freed.wait_for(lambda: not self._taken or self._taken + count <= self._limit)
            self._taken += count
        try:
            yield
        finally:
            with self._freed:
                self._taken -= count
                self._freed.notify_all()


@functools.cache
def films_budget() -> ByteBudget:
    """The budget of this process for films under way at their full size, in all its threads."""
    return ByteBudget(int(FILMS_SHARE * job_memory()))


@contextlib.contextmanager
def film_memory(count: int) -> Iterator[None]:
    """Hold `count` bytes of the films' budget while the block runs.

    Raises ImageError, the reason for the film's row, where this job has too little memory.
    """
    if count > (limit := int(FILM_SHARE * job_memory())):
        raise ImageError(
            f"too large: takes {count // 10**6} MB, over {limit // 10**6}, half of the job's memory"
        )
    with films_budget().taking(count):
        yield
