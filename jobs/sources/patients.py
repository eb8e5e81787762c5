"""The patient of a film: by a pattern in its name or by a table, instead of by its layout."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
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
# Films listed in an error.
NAMED = 5

# Returns the patient of a film, "" if there is none.
Lookup = Callable[[FilmFiles], str]


def assign(films: Sequence[FilmFiles], lookup: Lookup, method: str) -> list[FilmFiles]:
    """The films with the patients that `lookup` returns; `method` names the lookup in the error.

    Films of the public sets for which it returns none keep the patient of their names. Raises
    ConfigError, listing films, if it returns none for another film.
    """
    patients = [lookup(film) for film in films]
    pairs = list(zip(films, patients, strict=True))
    missing = [film for film, patient in pairs if not patient and not film.is_family]
    if missing:
        names = ", ".join(repr(film.film[1]) for film in missing[:NAMED])
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        raise ConfigError(
            f"{method} finds no patient for {len(missing)} of {len(films)} films: {names}{more}: "
            "every film needs a patient"
        )
    return [replace(film, patient=patient or film.patient) for film, patient in pairs]


def by_pattern(pattern: str) -> Lookup:
    """Look up a patient by the match of the group `patient`, or of the only group.

    Searches the file's name without its extension or, if the pattern has a "/", the path in the
    source, both in Unicode's composed form. The id is not searched, because it depends on the other
    films. Films of the public sets keep the patient of their names: a pattern is for a team's own.
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
    """Look up a patient by the film's path in its source, composed or not, else by its id."""
    patients = {_composed(film): patient for film, patient in table.items()}
    return lambda film: patients.get(_composed(film.film[1])) or patients.get(film.id, "")


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """ConfigError unless `pattern` is a regular expression with one group for the patient."""
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
    """{film: patient} of the CSV at s3:// or file://; a film is its path in the source or its id.

    Raises BadDataError if the CSV is not such a table, NotFoundError if it does not exist.
    """
    return parse_lookup(_read(uri, store), uri, "film", "patient")


def digest(table: dict[str, str]) -> str:
    """sha256 (hex) of the table's rows, independent of their order."""
    lines = (f"{film}\0{patient}\n" for film, patient in sorted(table.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _composed(name: str) -> str:
    """The name in Unicode's composed form (NFC): macOS decomposes names, people type composed."""
    return unicodedata.normalize("NFC", name)


def _read(uri: str, store: Store) -> bytes:
    if not uri.startswith("file://"):
        return store.read(uri)
    path = Path(unquote(uri.removeprefix("file://")))
    try:
        return path.read_bytes()
    except OSError as error:
        raise NotFoundError(f"{path} cannot be read ({error.strerror}): give {COLUMNS}") from None
