"""Which film a mask's file belongs to, and which lung it shows, by the file's name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from jobs.sources.folder_roles import LEFT, LUNGS, MASK_NOUNS, RIGHT

SEPARATOR = r"[-_. (\[]+"
# What follows the word in the name of a second mask or a copy: "x_mask_2", "x_mask (1)".
COPY = r"(?:[-_. ]*(?:\(\d+\)|v?\d{1,2}|copy|final)){0,2}"
# A mask's name in any folder; the other words mark a mask only where the film is known.
NOUN = "|".join(sorted(MASK_NOUNS))
MARKED = re.compile(rf"(?:.+{SEPARATOR})?(?:{NOUN})[)\]]?{COPY}|(?:{NOUN}){SEPARATOR}.+", re.I)
WORDS = rf"{NOUN}|segmentation|segm|seg|labelmap|labels?|lungs?|gt"
SIDES = ("left", "right")
SIDE = "|".join(SIDES)
AFFIX = re.compile(
    rf"(?P<film>.+?)(?:{SEPARATOR}(?P<word>{WORDS}|{SIDE})|(?P<joined>mask|msk|(?:{SIDE})lung))[)\]]?"
    rf"|(?P<first>{WORDS}|{SIDE}){SEPARATOR}(?P<stem>.+)",
    re.I,
)


class MaskName(NamedTuple):
    """A film's stem that a mask's name may stand for; `side` is LEFT, RIGHT or LUNGS."""

    stem: str
    side: str


def is_marked(stem: str) -> bool:
    """Whether a stem is that of a mask whatever films there are: x_mask, mask_x, x_mask_2, mask."""
    return bool(MARKED.fullmatch(stem))


def readings(stem: str) -> Iterator[MaskName]:
    """The stems of films that a mask's stem may stand for: first itself, then without affixes.

    "a_left_lung_mask" gives itself, "a_left_lung", "a_left", and "a" as a left lung.
    """
    side = LUNGS
    yield MaskName(stem, side)
    for film, affix in _without_affixes(stem):
        side = LEFT if "left" in affix else RIGHT if "right" in affix else side
        yield MaskName(film, side)


def named_films(stem: str) -> Iterator[str]:
    """The stems of films whose mask a stem says to be: "a_lung" says "a", "a_left" says none."""
    says_mask = False
    for film, affix in _without_affixes(stem):
        says_mask = says_mask or affix not in SIDES
        if says_mask:
            yield film


def _without_affixes(stem: str) -> Iterator[tuple[str, str]]:
    """(the rest of the stem, the affix in lower case), an affix at a time."""
    while match := AFFIX.fullmatch(stem):
        stem = match["film"] or match["stem"]
        yield stem, (match["word"] or match["joined"] or match["first"]).lower()
