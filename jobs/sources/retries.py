"""Requests that are repeated after a failure, with growing pauses and a limit.

URLs may carry a signature or a password, so no log line or message shows either.
"""

from __future__ import annotations

import logging
import random
import re
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from time import sleep
from typing import TypeVar

from jobs.errors import JobError, ServiceUnavailableError
from jobs.sources.zip_member import DamagedError

log = logging.getLogger(__name__)

# Attempts in a row that bring no new byte.
FRUITLESS_ATTEMPTS = 6
# Seconds; the longest pause that a server has not asked for.
LONGEST_PAUSE = 60.0
# Seconds; a server that asks for more is left to the job's scheduler.
LONGEST_RETRY_AFTER = 600.0

T = TypeVar("T")


class Retries:
    """Repeats failed attempts and counts the repetitions; `name` is the source in messages.

    `refusal` returns the error that ends the job at once, or None if another attempt may succeed.
    """

    def __init__(self, name: str, refusal: Callable[[Exception], JobError | None]) -> None:
        self.name = name
        self.count = 0
        self._refusal = refusal

    def run(self, attempt: Callable[[], T], received: Callable[[], int] = lambda: 0) -> T:
        """The result of the first attempt that succeeds.

        `received` returns the bytes received by all attempts together; an attempt that adds some
        does not count towards the limit. Raises what `pause` raises.
        """
        import requests

        fruitless, most = 0, received()
        while True:
            try:
                return attempt()
            except (requests.RequestException, DamagedError) as error:
                fruitless = 1 if received() > most else fruitless + 1
                most = max(most, received())
                self.pause(error, fruitless)

    def pause(self, error: Exception, fruitless: int) -> None:
        """Wait after the `fruitless`-th attempt in a row that failed without a new byte.

        Raises the refusal of `error` if there is one, and ServiceUnavailableError after
        FRUITLESS_ATTEMPTS or if the server asks for a pause above LONGEST_RETRY_AFTER.
        """
        if refusal := self._refusal(error):
            raise refusal from None
        retry_after = _retry_after(error)
        if fruitless >= FRUITLESS_ATTEMPTS or retry_after > LONGEST_RETRY_AFTER:
            wait = f" and asks to wait {retry_after:.0f} s" if retry_after else ""
            raise ServiceUnavailableError(
                f"{self.name} is not delivered after {self.count} retries{wait} "
                f"({_describe(error)}): run the job again later"
            ) from None
        self.count += 1
        # Jitter, so that many jobs do not return at the same moment.
        seconds = max(retry_after, min(LONGEST_PAUSE, 2.0**fruitless) * random.uniform(0.5, 1))
        log.warning("%s: %s; retry %d in %.0f s", self.name, _describe(error), self.count, seconds)
        sleep(seconds)


def _retry_after(error: Exception) -> float:
    """Seconds of the response's Retry-After, a number or a date (RFC 9110); 0 without one."""
    response = getattr(error, "response", None)
    value = "" if response is None else response.headers.get("Retry-After", "")
    if value.isdecimal():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return 0.0


def _describe(error: Exception) -> str:
    """The error in one short line, without the query and the password of a URL."""
    text = re.sub(r"\?[^\s'\")]*", "?...", " ".join(str(error).split()))
    text = re.sub(r"//[^/\s]*@", "//", text)
    return f"{type(error).__name__}: {text[:200]}"
