"""Progress: a bar where there is a terminal, a log line every few seconds where there is none."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 5.0

T = TypeVar("T")


def track(items: Iterable[T], total: int, label: str) -> Iterator[T]:
    """Yield the items, telling how many of `total` are done."""
    with Progress(total, label, "film") as progress:
        for item in items:
            yield item
            progress.advance()


class Progress:
    """Counts to `total` and tells how far it is; use it as a context."""

    def __init__(self, total: int, label: str, unit: str) -> None:
        self._total = total
        self._label = label
        self._done = 0
        self._started = self._told = time.monotonic()
        self._on_terminal = sys.stderr.isatty()
        self._bar: Any = tqdm(
            total=total, desc=f"{label:>10}", unit=unit, disable=not self._on_terminal
        )
        # Log lines above the bar, not through it.
        self._redirect: Any = logging_redirect_tqdm() if self._on_terminal else None

    def __enter__(self) -> Self:
        if self._redirect:
            self._redirect.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.close()
        if self._redirect:
            self._redirect.__exit__(kind, error, traceback)

    def advance(self, note: str = "") -> None:
        """One more is done; `note` is what it came to."""
        self._done += 1
        self._bar.set_postfix_str(note, refresh=False)
        self._bar.update()
        now = time.monotonic()
        due = now - self._told >= SECONDS_BETWEEN_LINES and self._done < self._total
        if due and not self._on_terminal:
            self._told = now
            rate = self._done / (now - self._started)
            log.info("%s %d of %d (%.1f/s) %s", self._label, self._done, self._total, rate, note)
