"""A table of what each try of a case should give against what it gave."""

from __future__ import annotations

import re
from typing import NamedTuple

RIGHT, WRONG, SKIPPED, UNKNOWN = "right", "WRONG", "skipped", "no expectation"
WIDTHS = (22, 28, 46)
LONGEST_GOT = 110


class SkippedError(Exception):
    """Why a try cannot be made on this machine."""


class Row(NamedTuple):
    """One try; `expected` is a regular expression of all of `got`."""

    case: str
    name: str
    expected: str
    got: str
    verdict: str


def compared(case: str, name: str, expected: str, got: str) -> Row:
    verdict = RIGHT if re.fullmatch(expected, got) else WRONG
    return Row(case, name, expected, got, verdict)


def skipped(case: str, name: str, expected: str, reason: str) -> Row:
    return Row(case, name, expected, reason, SKIPPED)


def without_expectation(case: str) -> Row:
    return Row(case, "", "", "", UNKNOWN)


HEADING = Row("case", "try", "expected", "got", "")


def line(row: Row) -> str:
    """The row in fixed columns; only a wrong result is printed in full."""
    expected = row.expected
    got = row.got
    if row.verdict != WRONG:
        expected, got = _cut(expected, WIDTHS[2]), _cut(got, LONGEST_GOT)
    columns = (row.case, row.name, expected)
    padded = [f"{text:<{width}}" for text, width in zip(columns, WIDTHS, strict=True)]
    return "  ".join([*padded, f"{row.verdict:<7}", got]).rstrip()


def summary(rows: list[Row]) -> str:
    counts = dict.fromkeys((RIGHT, WRONG, SKIPPED, UNKNOWN), 0)
    for row in rows:
        counts[row.verdict] += 1
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
