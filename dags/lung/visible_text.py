"""Text from outside (names, errors, a job's output) shown so that it cannot pass for ours.

The same as in `jobs/runtime/visible_text.py`, which DAGs do not import.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

# C0, DEL and C1; separators of lines; marks that change the direction of text; lone surrogates.
CONTROLS = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def visible(text: str) -> str:
    r"""The text on one line, a control character as its escape: \n, \x1b, \u202e."""
    return CONTROLS.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def visible_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The output of a job by lines, each visible, from chunks that may end anywhere."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (_visible(line) + b"\n" for line in lines)
    if rest:
        yield _visible(rest)


def _visible(line: bytes) -> bytes:
    return visible(line.decode(errors="backslashreplace").rstrip()).encode()
