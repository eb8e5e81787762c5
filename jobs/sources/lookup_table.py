"""A CSV with one value for each name, such as the patient of a film or the split of a patient.

Read as spreadsheets write it: cells between ",", ";" or tabs, with spaces after them or not; UTF-8,
or UTF-16 with its byte order mark; lines that end as on Windows, Unix or an old Mac; headings in
any case and order; a first line `sep=;`; blank lines and empty cells at the end of a line.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import re
from collections.abc import Iterator

from jobs.errors import BadDataError
from jobs.sources.file_kinds import HEAD, kind_of

DELIMITERS = (",", ";", "\t")
# The first line by which a file tells Excel its delimiter; with quotes if a spreadsheet saved it.
SEPARATOR_LINE = re.compile(r'"?sep=([^\w\s"]|\t)"?[,;\t]*(\r\n?|\n|$)', re.IGNORECASE)
SAVE_AS = "save it as CSV UTF-8 (in Excel: Save As, CSV UTF-8)"
# Characters of a line in an error.
SHOWN = 60
# The columns of ChestX-ray14's table, Data_Entry_2017.csv.
NIH = {"image index": "film", "patient id": "patient"}

# The number of a row's last line, and the row's cells.
Row = tuple[int, list[str]]


def parse_lookup(data: bytes, origin: str, key: str, value: str) -> dict[str, str]:
    """{name: value} of a CSV with the columns `key` and `value`; other columns are ignored.

    Raises BadDataError, naming `origin` and the line, if the file is not such a table or has no
    rows, if a row lacks one of the two columns or has more cells than the heading, and if a name
    has two values.
    """
    form = f"give a CSV with the columns {key},{value}"
    text = _text(data, origin)
    try:
        lookup = _parse(text, origin, key, value)
    except csv.Error as error:
        raise BadDataError(f"{origin} is not a table of {value}s ({error}): {form}") from None
    if not lookup:
        raise BadDataError(f"{origin} names no {key}: {form}, one {key} a line")
    return lookup


def _text(data: bytes, origin: str) -> str:
    """The decoded file without its byte order mark; BadDataError for another encoding."""
    kind = kind_of(data[:HEAD])
    if kind and kind.sort != "text":
        raise BadDataError(f"{origin} is no CSV but {kind.what}: {SAVE_AS}")
    is_utf_16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    # UTF-32 begins like UTF-16.
    if data[2:4] == b"\0\0" if is_utf_16 else b"\0" in data:
        raise BadDataError(f"{origin} has NUL bytes, as UTF-16 without its mark: {SAVE_AS}")
    try:
        return data.decode("utf-16" if is_utf_16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = len(re.findall(rb"\r\n?|\n", data[: error.start])) + 1
        raise BadDataError(
            f"{origin} is not UTF-{16 if is_utf_16 else 8} (line {line}: {error.reason}), and its "
            f"encoding is not guessed: {SAVE_AS}"
        ) from None


def _parse(text: str, origin: str, key: str, value: str) -> dict[str, str]:
    rows, heading = _below_heading(text, origin, key, value)
    lookup: dict[str, str] = {}
    lines: dict[str, int] = {}
    for line, cells in rows:
        if any(cells[len(heading) :]):
            raise BadDataError(
                f"{origin}: line {line} has {len(cells)} cells, the heading {len(heading)}: put "
                f'a cell with a separator in it between quotes ("a,b")'
            )
        by_column = dict(zip(heading, cells, strict=False))
        name, entry = by_column.get(key, ""), by_column.get(value, "")
        if not name or not entry:
            raise BadDataError(f"{origin}: line {line} lacks the {key} or the {value}: give both")
        lines.setdefault(name, line)
        if (first := lookup.setdefault(name, entry)) != entry:
            raise BadDataError(
                f"{origin}: {key} {name!r} has two {value}s, {first!r} and {entry!r}: remove one "
                f"of the lines {lines[name]} and {line}"
            )
    return lookup


def _below_heading(text: str, origin: str, key: str, value: str) -> tuple[Iterator[Row], list[str]]:
    """The rows below the heading, and the heading in lower case; BadDataError without one.

    The delimiter is the one that shows both columns in the heading.
    """
    stated = SEPARATOR_LINE.match(text)
    body = text[stated.end() :] if stated else text
    for delimiter in (stated[1],) if stated else DELIMITERS:
        rows = _rows(body, delimiter, 1 if stated else 0)
        # Quoted headings are an error for every delimiter but their own.
        with contextlib.suppress(csv.Error):
            line, cells = next(rows, (0, []))
            heading = _heading(cells)
            if twice := [name for name in (key, value) if heading.count(name) > 1]:
                raise BadDataError(
                    f"{origin}: line {line} has two columns {twice[0]!r}: remove one"
                )
            if key in heading and value in heading:
                return rows, heading
    if not body.strip():
        return iter(()), []
    raise BadDataError(
        f"{origin} is not a table of {value}s (its first line is "
        f"{body.strip().splitlines()[0][:SHOWN]!r} instead of the heading {key},{value}): give a "
        f"CSV with the columns {key},{value}"
    )


def _heading(cells: list[str]) -> list[str]:
    """The columns' names in lower case; those of NIH's table as ours, unless ours are there too."""
    names = [cell.casefold() for cell in cells]
    # A set: a heading may have a million cells.
    there = set(names)
    return [NIH.get(name, name) if NIH.get(name) not in there else name for name in names]


def _rows(text: str, delimiter: str, lines_before: int) -> Iterator[Row]:
    """The rows that have a cell with text, without spaces around their cells."""
    # newline="": the lines end as they do, and a quoted cell keeps its line breaks. Without
    # `strict` an unclosed quote would make the rest of the file one cell.
    lines = io.StringIO(text, newline="")
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                yield reader.line_num + lines_before, cells
    except csv.Error as error:
        raise csv.Error(f"line {reader.line_num + lines_before}: {error}") from None
