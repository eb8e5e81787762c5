"""Whose film it is: a pattern in the film's name, or a table, in place of what layouts tell."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from jobs.errors import ConfigError, NotFoundError
from jobs.sources.layouts import FAMILY, FilmFiles

if TYPE_CHECKING:
    from jobs.storage import Store

COLUMNS = "a CSV with the columns film,patient"
NAMED = 5

Lookup = Callable[[FilmFiles], str]  # the film's patient, "" where there is none


def assign(films: Iterable[FilmFiles], lookup: Lookup, told: str) -> list[FilmFiles]:
    """The films, each with the patient that `lookup` finds; `told` says how, for the error.

    Films of the public sets that it does not find keep the patient of their own names.
    Raises ConfigError, naming films, where others are not found.
    """
    found = [(film, lookup(film)) for film in films]
    lost = [film for film, patient in found if not patient and not FAMILY.fullmatch(film.id)]
    if lost:
        names = ", ".join(repr(film.film[1]) for film in lost[:NAMED])
        more = f" and {len(lost) - NAMED} more" if len(lost) > NAMED else ""
        raise ConfigError(
            f"{told} finds no patient for {len(lost)} of {len(found)} films: {names}{more}: "
            "it has to find one for every film"
        )
    return [replace(film, patient=patient or film.patient) for film, patient in found]


def by_pattern(pattern: str) -> Lookup:
    """What the group `patient`, or the only group, matches in the film's id, else in its path."""
    compiled = compile_pattern(pattern)
    group = "patient" if "patient" in compiled.groupindex else 1

    def lookup(film: FilmFiles) -> str:
        match = compiled.search(film.id) or compiled.search(film.film[1])
        return (match[group] or "").strip() if match else ""

    return lookup


def by_table(table: Mapping[str, str]) -> Lookup:
    """The patient of the film's path in its source, else of its id."""
    return lambda film: table.get(film.film[1]) or table.get(film.id, "")


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """ConfigError unless `pattern` is a regular expression that says which part is the patient."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ConfigError(
            f"--patient-pattern {pattern!r} is not a regular expression ({error}): give one such "
            "as ^([^_]+)_"
        ) from None
    if compiled.groups != 1 and "patient" not in compiled.groupindex:
        raise ConfigError(
            f"--patient-pattern {pattern!r} has {compiled.groups} groups: put the patient in the "
            "only one, as in ^([^_]+)_, or in one named (?P<patient>...)"
        )
    return compiled


def read_table(uri: str, store: Store) -> dict[str, str]:
    """{film: patient} of the CSV at s3:// or file://; ConfigError where it is no such table.

    A film stands there by its path in its source or by its id, and has one patient.
    """
    text = _decoded(uri, _read(uri, store))
    reader = csv.DictReader(io.StringIO(text), strict=True)
    table: dict[str, str] = {}
    try:
        for row in reader:
            film, patient = (row[column].strip() for column in ("film", "patient"))
            if not film or not patient:
                raise ConfigError(
                    f"{uri}: line {reader.line_num} lacks the film or its patient: give both"
                )
            if table.setdefault(film, patient) != patient:
                raise ConfigError(f"{uri}: film {film!r} has two patients: leave one of the lines")
    except (KeyError, AttributeError, csv.Error) as error:
        raise ConfigError(f"{uri} is no table of patients ({error}): give {COLUMNS}") from None
    if not table:
        raise ConfigError(f"{uri} names no film: give {COLUMNS}, a line a film")
    return table


def digest(table: dict[str, str]) -> str:
    """sha256 (hex) of the table's lines, in whatever order they stood."""
    lines = (f"{film}\0{patient}\n" for film, patient in sorted(table.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _read(uri: str, store: Store) -> bytes:
    if not uri.startswith("file://"):
        return store.read(uri)
    path = Path(unquote(uri.removeprefix("file://")))
    try:
        return path.read_bytes()
    except OSError as error:
        raise NotFoundError(f"{path} cannot be read ({error.strerror}): give {COLUMNS}") from None


def _decoded(uri: str, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{uri} is not UTF-8 ({error.reason}): give {COLUMNS}") from None
