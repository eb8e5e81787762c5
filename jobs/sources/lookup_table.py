"""A CSV that gives each name one value: a film its patient, a patient the split."""

from __future__ import annotations

import csv
import io

from jobs.errors import ConfigError


def parse_lookup(data: bytes, origin: str, key: str, value: str) -> dict[str, str]:
    """{name: value} of a UTF-8 CSV with the columns `key` and `value`; others are left aside.

    Raises ConfigError, naming `origin`, where it is no such table or an empty one, where a line
    lacks one of the two, and where a name has two values.
    """
    wanted = f"give a CSV with the columns {key},{value}"
    try:
        text = data.decode("utf-8-sig")
        found = _parse(text, origin, key, value)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{origin} is not UTF-8 ({error.reason}): {wanted}") from None
    except KeyError as error:
        raise ConfigError(
            f"{origin} is no table of {value}s (no column {error}): {wanted}"
        ) from None
    except csv.Error as error:
        raise ConfigError(f"{origin} is no table of {value}s ({error}): {wanted}") from None
    if not found:
        raise ConfigError(f"{origin} names no {key}: {wanted}, a line a {key}")
    return found


def _parse(text: str, origin: str, key: str, value: str) -> dict[str, str]:
    found: dict[str, str] = {}
    reader = csv.DictReader(io.StringIO(text), strict=True)
    for row in reader:
        name, told = ((row[column] or "").strip() for column in (key, value))
        if not name or not told:
            raise ConfigError(
                f"{origin}: line {reader.line_num} lacks the {key} or its {value}: give both"
            )
        if (first := found.setdefault(name, told)) != told:
            raise ConfigError(
                f"{origin}: {key} {name!r} has two {value}s, {first!r} and {told!r}: leave one of "
                "the lines"
            )
    return found
