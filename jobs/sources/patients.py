"""The patient of a film: by a pattern in its name or by a table, instead of by its layout."""

from __future__ import annotations

import hashlib
import logging
import posixpath
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import unquote

from jobs.errors import ConfigError, NotFoundError
from jobs.sources.catalogue import FilmFiles
from jobs.sources.lookup_table import parse_lookup
from jobs.storage.csv_table import unescape_formula

if TYPE_CHECKING:
    from jobs.storage.s3 import Store

log = logging.getLogger(__name__)

COLUMNS = "a CSV with the columns film,patient"
# Films listed in an error.
NAMED = 5
# The names of ChestX-ray14: the patient's number, then the film's.
NUMBERED = re.compile(r"([0-9]{8})_[0-9]{3}")

# Returns the patient of each film, "" where there is none.
Lookup = Callable[[Sequence[FilmFiles]], list[str]]


def assign(films: Sequence[FilmFiles], lookup: Lookup, method: str) -> list[FilmFiles]:
    """The films with the patients that `lookup` returns; `method` names the lookup in the error.

    Films of the public sets for which it returns none keep the patient of their names. Raises
    ConfigError, listing films, if it returns none for another film.
    """
    pairs = list(zip(films, lookup(films), strict=True))
    missing = [film for film, patient in pairs if not patient and not film.is_family]
    if missing:
        names = ", ".join(repr(film.film[1]) for film in missing[:NAMED])
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        raise ConfigError(
            f"{method} finds no patient for {len(missing)} of {len(films)} films: {names}{more}: "
            "every film needs a patient"
        )
    return [replace(film, patient=patient or film.patient) for film, patient in pairs]


def warn_of_numbered_films(films: Sequence[FilmFiles]) -> None:
    """Log a warning where numbers repeat in names such as NIH's 00000012_003.png, of patient 12."""
    stems = (PurePosixPath(film.film[1]).stem for film in films)
    numbers = Counter(match[1] for stem in stems if (match := NUMBERED.fullmatch(stem)))
    if (repeated := numbers.total() - len(numbers)) > 0:
        log.warning(
            "%d films have the number of another one in their names, as in ChestX-ray14, and count "
            "as patients of their own: --patient-pattern '^([0-9]{8})_' makes them one patient",
            repeated,
        )


def by_pattern(pattern: str) -> Lookup:
    """Look up a patient by the match of the group `patient`, or of the only group.

    Searches the file's name without its extension or, if the pattern has a "/", the path in the
    source, both in Unicode's composed form. The id is not searched, because it depends on the other
    films. Films of the public sets keep the patient of their names: a pattern is for a team's own.
    """
    compiled = compile_pattern(pattern)
    group = "patient" if "patient" in compiled.groupindex else 1
    by_path = "/" in pattern

    def patient_of(film: FilmFiles) -> str:
        if film.is_family:
            return film.patient
        path = _composed(film.film[1])
        match = compiled.search(path if by_path else PurePosixPath(path).stem)
        return (match[group] or "").strip() if match else ""

    return lambda films: list(map(patient_of, films))


def by_table(table: Mapping[str, str]) -> Lookup:
    """Look up a patient by the film's path in its source, composed or not, or by its id.

    A line that names no film so names the film at its path with "/" for "\\" and without "./",
    without the apostrophe that our CSVs put before a formula, or with its bare file name. Raises
    ConfigError for a bare name of several films, and for a film that two lines give different
    patients.
    """

    def lookup(films: Sequence[FilmFiles]) -> list[str]:
        named = _Named(films)
        lines: dict[str, tuple[str, str]] = {}
        for name, patient in table.items():
            for film in named.films(name):
                first_name, first = lines.setdefault(film.id, (name, patient))
                if first != patient:
                    raise ConfigError(
                        f"--patients gives film {film.film[1]!r} two patients, {first!r} as "
                        f"{first_name!r} and {patient!r} as {name!r}: remove one of the lines"
                    )
        return [lines[film.id][1] if film.id in lines else "" for film in films]

    return lookup


class _Named:
    """Films by the names that a table may give them, in Unicode's composed form."""

    def __init__(self, films: Iterable[FilmFiles]) -> None:
        self._by_path: dict[str, list[FilmFiles]] = defaultdict(list)
        self._by_id: dict[str, list[FilmFiles]] = defaultdict(list)
        self._by_file: dict[str, list[FilmFiles]] = defaultdict(list)
        for film in films:
            path = _composed(film.film[1])
            self._by_path[path].append(film)
            self._by_id[film.id].append(film)
            self._by_file[path.rpartition("/")[2]].append(film)

    def films(self, name: str) -> list[FilmFiles]:
        """The film of that name, or those with the same path in several sources; or none."""
        composed = _composed(name)
        unescaped = unescape_formula(composed)
        path = posixpath.normpath(unescaped.replace("\\", "/"))
        for form in (composed, unescaped, path):
            if films := self._by_path.get(form) or self._by_id.get(form):
                return films
        films = self._by_file.get(composed) or self._by_file.get(unescaped) or []
        paths = sorted({film.film[1] for film in films})
        if len(paths) > 1:
            raise ConfigError(
                f"--patients names {name!r}, which {len(paths)} films are called, {paths[0]!r} and "
                f"{paths[1]!r}: give their paths in the source"
            )
        return films


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
