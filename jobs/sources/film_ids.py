"""The ids of films: safe in file names and S3 keys, and different also where case is ignored."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

LONGEST_ID = 128
# Hex digits of the digest behind an id: as few as tell the films apart.
DIGITS = (8, 16, 32, 64)
# The source of a key of a public set: its films have one id in all sources.
ANY_SOURCE = -1


@dataclass(frozen=True)
class Key:
    """What a film and its masks share.

    `root` is the path above the folder with the role, `within` the path below that folder, `stem`
    the file's name without affixes and extension. `name` is set where files of one stem are films
    of their own.
    """

    source: int
    root: str
    within: str
    stem: str
    name: str = ""

    @property
    def is_family(self) -> bool:
        return self.source == ANY_SOURCE


def film_id(name: str) -> str:
    """An id from the film's name alone, so that it does not depend on the other films."""
    stem = os.path.splitext(name)[0]
    # Names in another script, of signs alone or with one long beginning differ by their digests: of
    # a hundred thousand, some would have the same 8 digits.
    is_plain = stem.isascii() and any(map(str.isalnum, stem))
    is_plain &= len(stem) <= LONGEST_ID - 1 - DIGITS[0]
    return _with_digest(_safe(stem), name, DIGITS[0] if is_plain else DIGITS[1])


def unique_ids(keys: Iterable[Key]) -> dict[Key, str]:
    """The stem if it is unique, else the folders and the stem; in safe characters only.

    Where safe names of two films are the same, both get a digest, and a longer one where a film has
    another's name and digest as its name.
    """
    keys = list(keys)
    stems = Counter(key.stem for key in keys)
    names = {}
    for key in keys:
        parts = (key.stem,) if stems[key.stem] == 1 else (key.root, key.within, key.stem)
        names[key] = _safe("_".join(filter(None, parts)))
    ids = dict(names)
    clashing = _same_names(ids) | {key for key in keys if len(names[key]) > LONGEST_ID}
    levels = itertools.chain(DIGITS, itertools.repeat(DIGITS[-1]))
    while clashing:
        digits = next(levels)
        for key in clashing:
            if not key.is_family:
                ids[key] = _with_digest(names[key], _full_name(key, digits), digits)
        clashing = _same_names(ids)
    return ids


def _same_names(names: Mapping[Key, str]) -> set[Key]:
    """The keys whose names differ from another's in case at most."""
    # On some file systems two names that differ only in case are the same file.
    lowered = Counter(name.lower() for name in names.values())
    return {key for key, name in names.items() if lowered[name.lower()] > 1}


def _full_name(key: Key, digits: int) -> str:
    # By "/", a/images/b/c and a/b/images/c are one text; the short digests of earlier runs stay.
    between = "/" if digits == DIGITS[0] else "\0"
    return key.name or between.join((str(key.source), key.root, key.within, key.stem))


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name)


def _with_digest(name: str, full: str, digits: int) -> str:
    digest = hashlib.sha256(full.encode()).hexdigest()[:digits]
    # 1: the hyphen.
    return f"{name[: LONGEST_ID - 1 - digits]}-{digest}"
