"""Two files with the name of one film, or of one mask: the first is used, so they must be equal.

Public sets share films, sometimes compressed again, and masks that another annotator drew.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from jobs.errors import BadDataError
from jobs.imaging import decode
from jobs.runtime.byte_budget import film_memory
from jobs.sources.catalogue import Catalogue, Member
from jobs.sources.source import Source

log = logging.getLogger(__name__)


def check_films(sources: Sequence[Source], catalogue: Catalogue) -> None:
    """Raise BadDataError, with both names, if two files of one film differ in their pixels."""
    films = {film.film for film in catalogue.films}
    for first, copy in catalogue.copies:
        if first in films and not _is_same_film(*_read(sources, first, copy)):
            raise BadDataError(
                f"{first[1]} and {copy[1]} have the same film's name but differ: rename or remove "
                "one, since a mask can belong to only one of them"
            )


def warn_of_masks(sources: Sequence[Source], catalogue: Catalogue) -> None:
    """Log a warning for every two mask files of one film and side whose bytes differ."""
    films = {film.film for film in catalogue.films}
    for first, copy in catalogue.copies:
        if first not in films and len(set(_read(sources, first, copy))) > 1:
            log.warning("%s and %s differ: the first is the mask", first[1], copy[1])


def _read(sources: Sequence[Source], *members: Member) -> list[bytes]:
    return [sources[source].read(name) for source, name in members]


def _is_same_film(first: bytes, second: bytes) -> bool:
    if first == second:
        return True
    # Lossless files of the same pixels differ if they were compressed differently.
    try:
        with film_memory(decode.working_bytes(first) + decode.working_bytes(second)):
            return np.array_equal(decode.decode_film(first), decode.decode_film(second))
    except decode.ImageError:
        return False
