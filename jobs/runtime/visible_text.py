"""Text from outside (names, values, messages of servers) shown so that it cannot pass for ours.

A newline in a file's name would forge a line of the log, ESC would steer the terminal, and a mark
of direction would reorder what a person reads. Letters of any script stay as they are.
"""

from __future__ import annotations

import logging
import re
from types import TracebackType

# C0, DEL and C1; separators of lines; marks that change the direction of text; lone surrogates,
# which no encoding accepts.
CONTROLS = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)

ErrorInfo = (
    tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
)


def visible(text: str) -> str:
    r"""The text on one line, a control character as its escape: \n, \x1b, \u202e."""
    return CONTROLS.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


class LineFormatter(logging.Formatter):
    """Formats a record as one line; the lines of a traceback are indented, as no record is."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        return visible(super().formatMessage(record))

    def formatException(self, ei: ErrorInfo) -> str:  # noqa: N802
        lines = super().formatException(ei).split("\n")
        return "\n".join("  " + visible(line) for line in lines)
