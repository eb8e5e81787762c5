"""Whose film it is: a pattern in the film's name, or a table, in place of what layouts tell."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import unquote

from jobs.errors import ConfigError, NotFoundError
from jobs.sources.layouts import FilmFiles
from jobs.sources.lookup_table import parse_lookup

if TYPE_CHECKING:
    from jobs.storage.s3 import Store

COLUMNS = "a CSV with the columns film,patient"
NAMED = 5

Lookup = Callable[[FilmFiles], str]  # the film's patient, "" where there is none


def assign(films: Iterable[FilmFiles], lookup: Lookup, told: str) -> list[FilmFiles]:
    """The films, each with the patient that `lookup` finds; `told` says how, for the error.

    Films of the public sets that it does not find keep the patient of their own names.
    Raises ConfigError, naming films, where others are not found.
    """
    found = [(film, lookup(film)) for film in films]
    lost = [film for film, patient in found if not patient and not film.is_family]
    if lost:
        names = ", ".join(repr(film.film[1]) for film in lost[:NAMED])
        more = f" and {len(lost) - NAMED} more" if len(lost) > NAMED else ""
        raise ConfigError(
            f"{told} finds no patient for {len(lost)} of {len(found)} films: {names}{more}: "
            "it has to find one for every film"
        )
    return [replace(film, patient=patient or film.patient) for film, patient in found]


def by_pattern(pattern: str) -> Lookup:
    """What the group `patient`, or the only group, matches in a film's name as it came.

    Searched is the name of its file without the extension, or, by a pattern with a "/", its path in
    the source, in Unicode's composed form; never the id, which changes with the films around it.
    Films of the public sets keep the patient of their own names: a pattern is for a team's own.
    """
    compiled = compile_pattern(pattern)
    group = "patient" if "patient" in compiled.groupindex else 1
    by_path = "/" in pattern

    def lookup(film: FilmFiles) -> str:
        if film.is_family:
            return film.patient
        path = _composed(film.film[1])
        match = compiled.search(path if by_path else PurePosixPath(path).stem)
        return (match[group] or "").strip() if match else ""

    return lookup


def by_table(table: Mapping[str, str]) -> Lookup:
    """The patient of the film's path in its source, composed or not, else of its id."""
    patients = {_composed(film): patient for film, patient in table.items()}
    return lambda film: patients.get(_composed(film.film[1])) or patients.get(film.id, "")


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
    return parse_lookup(_read(uri, store), uri, "film", "patient")


def digest(table: dict[str, str]) -> str:
    """sha256 (hex) of the table's lines, in whatever order they stood."""
    lines = (f"{film}\0{patient}\n" for film, patient in sorted(table.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _composed(name: str) -> str:
    """The name in Unicode's composed form: names from macOS are not, what people type is."""
    return unicodedata.normalize("NFC", name)


def _read(uri: str, store: Store) -> bytes:
    if not uri.startswith("file://"):
        return store.read(uri)
    path = Path(unquote(uri.removeprefix("file://")))
    try:
        return path.read_bytes()
    except OSError as error:
        raise NotFoundError(f"{path} cannot be read ({error.strerror}): give {COLUMNS}") from None
