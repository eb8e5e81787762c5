"""A bound on the bytes that threads hold at once, whatever their number."""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Iterator

M_MMAP_THRESHOLD = -3  # glibc's malloc.h
LARGE_BLOCK = 2**20  # bytes


class ByteBudget:
    """Lets threads take bytes up to `limit`; one that needs more than that waits to be alone."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken = 0
        self._freed = threading.Condition()

    @contextlib.contextmanager
    def taking(self, count: int) -> Iterator[None]:
        """Hold `count` bytes while the block runs, after waiting until they are free."""
        with self._freed:
            self._freed.wait_for(lambda: not self._taken or self._taken + count <= self._limit)
            self._taken += count
        try:
            yield
        finally:
            with self._freed:
                self._taken -= count
                self._freed.notify_all()


def return_large_blocks() -> None:
    """Have every block of a megabyte go back to the system when it is freed.

    By default glibc keeps what threads free, up to 64 MB for each of them, and a bound on what they
    hold is none on the process. Other C libraries, without this setting, are left as they are.
    """
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK)
