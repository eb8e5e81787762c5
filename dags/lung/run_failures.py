"""Why the tasks of a run failed, in words: without Airflow, web or S3."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from lung.job_log import LAST_LINE

RETRIED = "up_for_retry"
FAILED = ("failed", RETRIED)


@dataclass(frozen=True)
class Try:
    """The last try of one instance of a task.

    Attributes:
        state: Airflow's word.
        number: of the try, from 1.
        most: the number of tries that the task has.
        shard: from 1; 0 where the task is not mapped.
        error: why it failed.
        retry_seconds: until the next try, where Airflow knows.
    """

    task: str
    state: str
    number: int = 1
    most: int = 1
    shard: int = 0
    error: str = ""
    retry_seconds: float | None = None


@dataclass(frozen=True)
class Failure:
    """A task that failed: what happened, its error, and its job's last line, "" without one."""

    task: str
    summary: str
    error: str
    last_line: str


def failures(tries: Iterable[Try]) -> Iterator[Failure]:
    """One failure for each task that has failed tries; `tries` are sorted by task and shard.

    Of the shards of a mapped task it is the first that is not retried, or the first.
    """
    for task, group in groupby(tries, key=lambda item: item.task):
        instances = list(group)
        failed = [item for item in instances if item.state in FAILED]
        if failed:
            first = min(failed, key=lambda item: (FAILED.index(item.state), item.shard))
            error, _, last_line = first.error.partition(LAST_LINE)
            yield Failure(task, summary(first, len(failed), len(instances)), error, last_line)


def summary(first: Try, failed: int, shards: int) -> str:
    """Which task failed, on which try, and whether it is retried."""
    where = ""
    if first.shard:
        where = f" in shard {first.shard} of {shards}"
    if failed > 1:
        where = f" in {failed} of {shards} shards, first in shard {first.shard}"
    return f"{first.task} failed{where} on try {first.number} of {first.most}. {_next(first)}"


def _next(first: Try) -> str:
    if first.state == RETRIED:
        return f"Try {first.number + 1} starts {_when(first.retry_seconds)}."
    if first.number < first.most:
        return "It is not retried."
    return "That was the last try."


def _when(seconds: float | None) -> str:
    if seconds is None:
        return "after a pause"
    if seconds <= 0:
        return "now"
    return f"in {seconds:.0f} s" if seconds < 90 else f"in {seconds / 60:.0f} min"
