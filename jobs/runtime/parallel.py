"""Threads over a stream, in order, with a bounded number of items under way."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from jobs.runtime.profile import waiting

T = TypeVar("T")
R = TypeVar("R")

CORES = os.cpu_count() or 1
# Threads that decode films: enough to keep the cores busy while some wait for S3, and so few that
# only some full-size films (up to 200 MB each on the way) are in memory at once.
CPU_THREADS = min(16, CORES + 2)


def ordered_map(
    function: Callable[[T], R], items: Iterable[T], *, threads: int, ahead: int | None = None
) -> Generator[R]:
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
                yield _result(pending.popleft())
                for item in itertools.islice(stream, 1):
                    pending.append(pool.submit(function, item))
        finally:
            for future in pending:
                future.cancel()


def run_all(function: Callable[[T], object], items: Iterable[T], *, threads: int) -> None:
    """Call `function` on each item in `threads` threads; raises the first error, in item order."""
    for _ in ordered_map(function, items, threads=threads):
        pass


def _result(future: Future[R]) -> R:
    with waiting():
        return future.result()


def batched_map(
    function: Callable[[T], R], batches: Iterable[Sequence[T]], *, threads: int, ahead: int
) -> Generator[list[R]]:
    """As `ordered_map` over the items of all batches, its results in the batches again."""
    items, sizes = itertools.tee(batches)
    stream = itertools.chain.from_iterable(items)
    with contextlib.closing(ordered_map(function, stream, threads=threads, ahead=ahead)) as results:
        for batch in sizes:
            yield list(itertools.islice(results, len(batch)))


def chunked(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items in lists of `size`, the last of them with what is left."""
    stream = iter(items)
    while chunk := list(itertools.islice(stream, size)):
        yield chunk
