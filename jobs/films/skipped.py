"""The files beside the films that predict and inbox pass over: skipped.csv, and counts to print.

Also the error where no film is left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from jobs.errors import BadDataError

SKIPPED_CSV = "skipped.csv"
COLUMNS = ["name", "reason"]


def by_reason(skipped: Mapping[str, str]) -> dict[str, int]:
    """The number of files by reason, most first, from each file's reason."""
    return dict(Counter(skipped.values()).most_common())


def described(counts: Mapping[str, int]) -> str:
    """The counts in one line, "none" without any."""
    return ", ".join(f"{reason} {count}" for reason, count in counts.items()) or "none"


def headline(counts: Mapping[str, int]) -> dict[str, int]:
    """The counts as figures to print beside a job's own."""
    return {f"passed over: {reason}": count for reason, count in counts.items()}


def lines(skipped: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """The rows of skipped.csv."""
    return ({"name": name, "reason": reason} for name, reason in skipped.items())


def no_films(place: str, counts: Mapping[str, int]) -> BadDataError:
    """The error of a folder or prefix in which nothing is left to mask."""
    return BadDataError(
        f"there are no films {place} (files passed over: {described(counts)}): give films as PNG, "
        "JPEG, TIFF, GIF, BMP, WebP or JPEG 2000, outside folders of masks"
    )
