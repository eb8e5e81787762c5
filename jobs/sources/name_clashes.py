"""Names that stand for one film, or one mask, twice: the first is kept, so they are to be the same.

Two sets often hold the same film, packed anew, and masks that differ by an annotator's hand.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from jobs.errors import BadDataError
from jobs.imaging import decode
from jobs.sources.layouts import Catalogue, Member
from jobs.sources.source import Source

log = logging.getLogger(__name__)


def check_films(sources: Sequence[Source], catalogue: Catalogue) -> None:
    """Raise BadDataError, with both names, where one film's name stands for two films."""
    films = {film.film for film in catalogue.films}
    for kept, copy in catalogue.copies:
        if kept in films and not _is_same_film(*_read(sources, kept, copy)):
            raise BadDataError(
                f"{kept[1]} and {copy[1]} bear the same film's name but differ: rename or remove "
                "one, since a mask can belong to only one of them"
            )


def warn_of_masks(sources: Sequence[Source], catalogue: Catalogue) -> None:
    """Log every two masks of one film and side that differ."""
    films = {film.film for film in catalogue.films}
    for kept, copy in catalogue.copies:
        if kept not in films and len(set(_read(sources, kept, copy))) > 1:
            log.warning("%s and %s differ: the first is the mask", kept[1], copy[1])


def _read(sources: Sequence[Source], *members: Member) -> list[bytes]:
    return [sources[source].read(name) for source, name in members]


def _is_same_film(one: bytes, other: bytes) -> bool:
    if one == other:
        return True
    try:
        return np.array_equal(decode.decode_film(one), decode.decode_film(other))
    except decode.ImageError:
        return False
