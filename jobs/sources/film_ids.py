"""Ids of films: safe in file names and S3 keys, one film each."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

# The source of a family's key: its films have one id in all sources.
ANY_SOURCE = -1
LONGEST_ID = 128


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
        """Whether the stem identifies the film in every folder and source."""
        return self.source == ANY_SOURCE


def film_id(name: str) -> str:
    """An id from the film's name alone, so that it does not depend on the other films."""
    return _with_digest(_safe(os.path.splitext(name)[0]), name)


def ids_of(keys: Iterable[Key]) -> dict[Key, str]:
    """The stem if it is unique, else the folders and the stem; in safe characters only."""
    keys = list(keys)
    stems = Counter(key.stem for key in keys)
    names = {}
    for key in keys:
        parts = (key.stem,) if stems[key.stem] == 1 else (key.root, key.within, key.stem)
        names[key] = _safe("_".join(filter(None, parts)))
    # On some file systems two names that differ only in case are the same file.
    lowered = Counter(name.lower() for name in names.values())
    for key, name in names.items():
        if not key.is_family and (lowered[name.lower()] > 1 or len(name) > LONGEST_ID):
            full = key.name or f"{key.source}/{key.root}/{key.within}/{key.stem}"
            names[key] = _with_digest(name, full)
    return names


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name)


def _with_digest(name: str, full: str) -> str:
    digest = hashlib.sha256(full.encode()).hexdigest()[:8]
    # 9: the hyphen and the digest.
    return f"{name[: LONGEST_ID - 9]}-{digest}"
