"""Which files of a long listing are films, by names that come one at a time."""

from __future__ import annotations

from dataclasses import replace

from jobs.sources import mask_names
from jobs.sources.file_names import reason_to_ignore
from jobs.sources.folder_roles import LEFT, LUNGS, RIGHT, is_organ
from jobs.sources.layouts import MASK, classify, is_of_an_organ, reason_to_skip


class NamesInTurn:
    """Which files are no films, as `films_to_mask` says, where names come one at a time.

    All names are noted before a reason is asked for. Holds a hash of each image's name, no names.
    """

    def __init__(self) -> None:
        self._films: set[int] = set()
        self._in_mask_folders: set[int] = set()
        self._mask_roots: set[str] = set()

    def note(self, name: str) -> bool:
        """Note a name; True where its reason has to wait, for other names may make it a mask's."""
        if reason_to_ignore(name):
            return False
        image = classify(0, name)
        (self._films if image.is_film else self._in_mask_folders).add(hash(image.key))
        if image.role in (LUNGS, LEFT, RIGHT):
            self._mask_roots.add(image.key.root)
        folder = name.rpartition("/")[0].rpartition("/")[2]
        return image.is_film and (
            is_organ(folder) or any(True for _ in mask_names.named_films(image.key.stem))
        )

    def reason_to_skip(self, name: str) -> str:
        """Why a name is not a film's, "" if it is a film's."""
        if reason := reason_to_skip(name):
            return reason
        image = classify(0, name)
        is_mask = is_of_an_organ(image, self._mask_roots) or (
            hash(image.key) not in self._in_mask_folders
            and any(
                hash(replace(image.key, stem=stem)) in self._films
                for stem in mask_names.named_films(image.key.stem)
            )
        )
        return MASK if is_mask else ""
