"""Threads over a stream, in order, with a bounded number of items under way."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

# Threads that decode films: enough to keep the cores busy while some wait for S3, and so few that
# only some full-size films (up to 200 MB each on the way) are in memory at once.
CPU_THREADS = min(16, (os.cpu_count() or 1) + 2)


def ordered_map(
    function: Callable[[T], R], items: Iterable[T], *, threads: int, ahead: int | None = None
) -> Iterator[R]:
    """Yield `function(item)` for each item, in the items' order, computed by `threads` threads.

    At most `ahead` items (twice the threads unless given) are taken from `items` before their
    results are consumed, so memory stays bounded over a stream of any length. The first error is
    raised in its item's place and nothing further is started.
    """
    ahead = ahead or 2 * threads
    stream = iter(items)
    pending: deque[Future[R]] = deque()
    with ThreadPoolExecutor(max_workers=threads) as pool:
        try:
            for item in itertools.islice(stream, ahead):
                pending.append(pool.submit(function, item))
            while pending:
                yield pending.popleft().result()
                for item in itertools.islice(stream, 1):
                    pending.append(pool.submit(function, item))
        finally:
            for future in pending:
                future.cancel()
