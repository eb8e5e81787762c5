"""A CSV with one value for each name, such as the patient of a film or the split of a patient."""

from __future__ import annotations

import csv
import io

from jobs.errors import BadDataError


def parse_lookup(data: bytes, origin: str, key: str, value: str) -> dict[str, str]:
    """{name: value} of a UTF-8 CSV with the columns `key` and `value`; other columns are ignored.

    Raises BadDataError, naming `origin`, if the file is not such a table or has no rows, if a row
    lacks one of the two columns, and if a name has two values.
    """
    form = f"give a CSV with the columns {key},{value}"
    try:
        # utf-8-sig: Excel writes a byte order mark.
        lookup = _parse(data.decode("utf-8-sig"), origin, key, value)
    except UnicodeDecodeError as error:
        raise BadDataError(f"{origin} is not UTF-8 ({error.reason}): {form}") from None
    except KeyError as error:
        raise BadDataError(
            f"{origin} is not a table of {value}s (no column {error}): {form}"
        ) from None
    except csv.Error as error:
        raise BadDataError(f"{origin} is not a table of {value}s ({error}): {form}") from None
    if not lookup:
        raise BadDataError(f"{origin} names no {key}: {form}, one {key} a line")
    return lookup


def _parse(text: str, origin: str, key: str, value: str) -> dict[str, str]:
    lookup: dict[str, str] = {}
    # Without `strict` an unclosed quote would make the rest of the file one field.
    reader = csv.DictReader(io.StringIO(text), strict=True)
    for row in reader:
        # DictReader gives None for the columns that a short row lacks.
        name, entry = ((row[column] or "").strip() for column in (key, value))
        if not name or not entry:
            raise BadDataError(
                f"{origin}: line {reader.line_num} lacks the {key} or the {value}: give both"
            )
        if (first := lookup.setdefault(name, entry)) != entry:
            raise BadDataError(
                f"{origin}: {key} {name!r} has two {value}s, {first!r} and {entry!r}: remove one "
                "of the lines"
            )
    return lookup
