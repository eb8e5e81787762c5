"""Progress: a bar where there is a terminal, a log line every few seconds where there is none."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 5.0

T = TypeVar("T")


def track(items: Iterable[T], total: int, label: str) -> Iterator[T]:
    """Yield the items, telling how many of `total` are done."""
    if sys.stderr.isatty():
        yield from tqdm(items, total=total, desc=f"{label:>12}", unit="film", leave=True)
        return
    started = told = time.monotonic()
    for number, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - told >= SECONDS_BETWEEN_LINES and number < total:
            told = now
            log.info("%s %d of %d (%.1f/s)", label, number, total, number / (now - started))
