"""A bound on the bytes that threads hold at once, whatever their number."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator

from jobs.runtime.memory import job_memory

# Of the job's memory, for films that are decoded or drawn; the rest is for the network and files.
FILMS_SHARE = 0.25


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
