"""Threads over a stream of items: results in order, a bounded number of items at a time."""

from __future__ import annotations

import contextlib
import contextvars
import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import TypeVar

from jobs.runtime.cores import cores
from jobs.runtime.profile import waiting

T = TypeVar("T")
R = TypeVar("R")

CORES = cores()
# Threads that decode films: a few more than cores, as some wait for S3; at most 16, as a full-size
# film takes up to 200 MB while it is decoded.
CPU_THREADS = min(16, CORES + 2)


def submit(pool: Executor, function: Callable[[T], R], item: T) -> Future[R]:
    """Have a thread of `pool` call `function` with the caller's context, and so its profile."""
    return pool.submit(contextvars.copy_context().run, function, item)


def ordered_map(
    function: Callable[[T], R], items: Iterable[T], *, threads: int, ahead: int | None = None
) -> Generator[R]:
    """Yield `function(item)` for each item, in the items' order, computed by `threads` threads.

    At most `ahead` items (by default twice the threads) are taken from `items` before their results
    are consumed, so memory stays bounded over a stream of any length. An error is raised where its
    item's result would be yielded, and no further item is started.
    """
    ahead = ahead or 2 * threads
    stream = iter(items)
    pending: deque[Future[R]] = deque()
    with ThreadPoolExecutor(max_workers=threads) as pool:
        try:
            for item in itertools.islice(stream, ahead):
                pending.append(submit(pool, function, item))
            while pending:
                yield _result(pending.popleft())
                for item in itertools.islice(stream, 1):
                    pending.append(submit(pool, function, item))
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
    """As `ordered_map` over the items of all batches; yields a list of results for each batch."""
    batches, ahead_of_results = itertools.tee(batches)
    items = itertools.chain.from_iterable(ahead_of_results)
    with contextlib.closing(ordered_map(function, items, threads=threads, ahead=ahead)) as results:
        for batch in batches:
            yield list(itertools.islice(results, len(batch)))


def chunked(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items in lists of `size`; the last one may be shorter."""
    stream = iter(items)
    while chunk := list(itertools.islice(stream, size)):
        yield chunk
