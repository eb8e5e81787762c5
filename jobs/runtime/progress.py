"""Progress: a bar on a terminal, else a log line every few seconds."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 5.0

T = TypeVar("T")


def track(items: Iterable[T], total: int, label: str) -> Iterator[T]:
    """Yield the items and show how many of `total` are done."""
    with Progress(total, label, "film") as progress:
        for number, item in enumerate(items, start=1):
            yield item
            progress.reach(number)


class Progress:
    """Shows how many units of `total` are done; use it as a context.

    `report`, where given, gets the number done at the start, every few seconds and at the end.
    """

    def __init__(
        self, total: int, label: str, unit: str, report: Callable[[int], None] | None = None
    ) -> None:
        self._total = total
        self._label = label
        self._report = report or (lambda done: None)
        self._last_logged = time.monotonic()
        self._on_terminal = sys.stderr.isatty()
        self._bar: Any = tqdm(
            total=total, desc=f"{label:>10}", unit=unit, disable=not self._on_terminal
        )
        # Logging through tqdm keeps log lines above the bar.
        self._redirect: Any = logging_redirect_tqdm() if self._on_terminal else None

    def __enter__(self) -> Self:
        if self._redirect:
            self._redirect.__enter__()
        self._report(0)
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

    def reach(self, done: int, note: str = "") -> None:
        """Show that `done` units are done, with those of earlier tries; `note` stands behind."""
        self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(done - self._bar.n if self._on_terminal else 0)
        if done >= self._total:
            self._report(done)
            return
        now = time.monotonic()
        if now - self._last_logged >= SECONDS_BETWEEN_LINES:
            self._last_logged = now
            self._report(done)
            if not self._on_terminal:
                log.info("%s %d of %d %s", self._label, done, self._total, note)
