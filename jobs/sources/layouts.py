"""Which files are films and which are their masks: by their names alone, however deep the folders.

    montgomery        .../CXR_png/<stem>.png, .../ManualMask/{leftMask,rightMask}/<stem>.png
    shenzhen          .../CXR_png/CHNCXR_*.png; masks <stem>_mask.png, often from another source
    masks-and-labels  .../Lung Segmentation/{CXR_png,test,masks}/
    plain             .../<film folder>/<stem>.*, .../<mask folder>/<stem or stem with an affix>.*
    films             images outside such folders, if the source has no other films

`folder_roles` says which folders hold films and masks, `mask_names` which affixes masks have. A
name MCUCXR_*, CHNCXR_* or PHANTOM_* identifies a film in every folder and source. Any other name
identifies a film of its folder; its masks are below the same root, or of a root or source of masks
alone.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from jobs.sources import mask_names
from jobs.sources.catalogue import FAMILY_SOURCES, Catalogue, FilmFiles, Member
from jobs.sources.file_names import reason_to_ignore
from jobs.sources.film_ids import ANY_SOURCE, Key, unique_ids
from jobs.sources.folder_roles import (
    FILM,
    LEFT,
    LOOSE,
    LUNGS,
    OTHER_MASK,
    RIGHT,
    folder_of,
    is_organ,
    says_mask,
)

FAMILY = re.compile(r"((MCUCXR|CHNCXR|PHANTOM)_[0-9]+)_([0-9])")
LABELS = {"0": "normal", "1": "abnormal"}
# JSRT's films and SCR's masks of them lie in folders of their own, wherever a user puts them.
JSRT = re.compile(r"JPC[LN]N[0-9]{3}")

STRAY, MASK, SECOND_MASK = "images outside a film or mask folder", "masks", "second mask of a film"
OTHER_MASKS = "masks of something else than lungs"


@dataclass(frozen=True)
class Image:
    """An image by its name; `key` is its own, or that of the film that a mask belongs to."""

    member: Member
    role: str
    layout: str
    key: Key

    @property
    def is_film(self) -> bool:
        return self.role in (FILM, LOOSE)

    def readings(self) -> Iterator[Image]:
        """A mask under each key of a film that its name may stand for, the likeliest first."""
        for reading in mask_names.readings(self.key.stem):
            # In leftMask/ and rightMask/ the folder decides the side.
            role = self.role if self.role in (LEFT, RIGHT) else reading.side
            key = Key(ANY_SOURCE, "", "", reading.stem)
            if not FAMILY.fullmatch(reading.stem):
                key = Key(self.key.source, self.key.root, self.key.within, reading.stem)
            yield Image(self.member, role, self.layout, key)


# By left, right or lungs; the first image is the mask, the others are copies.
Masks = dict[str, list[Image]]


def recognise(names: Sequence[Sequence[str]]) -> Catalogue:
    """Sort the names of each source into films, their masks and all other files."""
    ignored: Counter[str] = Counter()
    images: list[Image] = []
    for source, source_names in enumerate(names):
        reasons = {name: reason_to_ignore(name) for name in sorted(source_names)}
        ignored.update(filter(None, reasons.values()))
        of_source = _marked([classify(source, name) for name, why in reasons.items() if not why])
        known = _without_strays(of_source)
        ignored[STRAY] += len(of_source) - len(known)
        images += known
    films: dict[Key, list[Image]] = defaultdict(list)
    for image in images:
        if image.is_film:
            films[image.key].append(image)
    masks: dict[Key, Masks] = defaultdict(lambda: defaultdict(list))
    unpaired: list[Image] = []
    for image in images:
        if image.role == OTHER_MASK:
            ignored[OTHER_MASKS] += 1
        elif not image.is_film:
            mask = _mask_of(image, films)
            unpaired += [] if mask else [image]
            if mask:
                masks[mask.key][mask.role].append(mask)
    unpaired = _join_across_roots(films, masks, unpaired)
    return _catalogue(films, masks, unpaired, ignored)


def films_to_mask(names: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """({id: name} of every image that is no mask, {name: reason} of all other files).

    Unlike `recognise` it leaves out no image for the folder that it lies in, and two files of one
    stem are two films.
    """
    reasons = {name: reason_to_ignore(name) for name in sorted(names)}
    images = _marked([classify(0, name) for name, reason in reasons.items() if not reason])
    skipped = {name: reason for name, reason in reasons.items() if reason}
    skipped |= {image.member[1]: MASK for image in images if not image.is_film}
    keys = [replace(image.key, source=0, name=image.member[1]) for image in images if image.is_film]
    films = {film_id: key.name for key, film_id in unique_ids(keys).items()}
    return dict(sorted(films.items())), dict(sorted(skipped.items()))


def reason_to_skip(name: str) -> str:
    """Why a name is not a film's, independent of the other files; "" if it is a film's."""
    reason = reason_to_ignore(name)
    if reason:
        return reason
    image = classify(0, name)
    is_mask = not image.is_film or mask_names.is_marked(image.key.stem)
    return MASK if is_mask else ""


def classify(source: int, name: str) -> Image:
    """The role, layout and key of an image, by the nearest folder above it that has a role."""
    # macOS decomposes names (NFD); a film and its mask may come from different machines.
    path, _, file = unicodedata.normalize("NFC", name).rpartition("/")
    stem = os.path.splitext(file)[0]
    folder = folder_of(path)
    key, role = Key(source, folder.root, folder.within, stem), folder.role
    if FAMILY.fullmatch(stem):
        key = Key(ANY_SOURCE, "", "", stem)
    without_role = path if role == LOOSE else folder.within if role == FILM else ""
    if without_role and says_mask(without_role) and not mask_names.is_marked(stem):
        role = OTHER_MASK
    if role == LOOSE and (FAMILY.fullmatch(stem) or JSRT.fullmatch(stem)):
        role = FILM
    return Image((source, name), role, _layout(folder.name, path, stem), key)


def _layout(folder: str, path: str, stem: str) -> str:
    if "lung segmentation" in path.lower().split("/"):
        return "masks-and-labels"
    if folder != "cxr_png":
        return "plain" if folder else "films"
    # Both sets have their films in CXR_png/.
    return "shenzhen" if stem.startswith("CHNCXR_") else "montgomery"


def _marked(images: list[Image]) -> list[Image]:
    """The images of one source, those outside mask folders whose names say "mask" as masks.

    A folder of another organ beside folders of masks, as "heart" beside "left lung", has masks.
    """
    mask_roots = {image.key.root for image in images if image.role in (LUNGS, LEFT, RIGHT)}
    if mask_roots:
        images = [
            replace(image, role=OTHER_MASK) if is_of_an_organ(image, mask_roots) else image
            for image in images
        ]
    stems = {image.key for image in images if image.is_film}
    in_mask_folders = {image.key for image in images if not image.is_film}

    def is_mask(image: Image) -> bool:
        if mask_names.is_marked(image.key.stem):
            return True
        # A film whose own mask is known is no mask of another one.
        return image.key not in in_mask_folders and any(
            replace(image.key, stem=stem) in stems
            for stem in mask_names.named_films(image.key.stem)
        )

    return [
        replace(image, role=LUNGS) if image.is_film and is_mask(image) else image
        for image in images
    ]


def is_of_an_organ(image: Image, mask_roots: Container[str]) -> bool:
    """Whether a folder of an organ holds the image, beside folders of masks: below their root."""
    above, _, folder = image.member[1].rpartition("/")[0].rpartition("/")
    return image.layout == "films" and above in mask_roots and is_organ(folder)


def _without_strays(images: list[Image]) -> list[Image]:
    """The images of one source, without loose images that are not films.

    A loose image is a film if the source has no film folder and, if the source has masks, one of
    them belongs to a loose image below the same root.
    """
    masks = [image for image in images if not image.is_film]
    has_film_folder = any(image.role == FILM and image.layout != "films" for image in images)
    loose_keys = {image.key for image in images if image.role == LOOSE}
    roots = {
        reading.key.root
        for mask in masks
        for reading in mask.readings()
        if reading.key in loose_keys
    }

    def is_film(loose: Image) -> bool:
        return not has_film_folder and (not masks or loose.key.root in roots)

    return [image for image in images if image.role != LOOSE or is_film(image)]


def _mask_of(image: Image, films: Container[Key]) -> Image | None:
    """The mask under the key of its film, None if there is no such film."""
    return next((reading for reading in image.readings() if reading.key in films), None)


def _join_across_roots(
    films: dict[Key, list[Image]], masks: dict[Key, Masks], unpaired: list[Image]
) -> list[Image]:
    """Pair, by a unique stem, films and masks whose folders hold nothing to pair them with.

    Kaggle has the films and the masks of Shenzhen in two datasets, and SCR has its masks of JSRT's
    films in folders of their own. Returns the masks that are left.
    """
    alone = _Alone(films, masks, unpaired)
    keys_by_stem: dict[str, list[Key]] = defaultdict(list)
    for key in films:
        if key not in masks:
            keys_by_stem[key.stem].append(key)
    readings = [_reading_of_a_stem(mask, keys_by_stem) for mask in unpaired]
    candidates = Counter((mask.key.stem, mask.role) for mask in readings if mask)
    left: list[Image] = []
    for image, mask in zip(unpaired, readings, strict=True):
        keys = keys_by_stem[mask.key.stem] if mask else []
        is_unique = mask and len(keys) == candidates[mask.key.stem, mask.role] == 1
        if mask and is_unique and alone.may_join(keys[0], mask.key):
            masks[keys[0]][mask.role].append(mask)
        else:
            left.append(image)
    return left


def _reading_of_a_stem(mask: Image, stems: Container[str]) -> Image | None:
    return next((reading for reading in mask.readings() if reading.key.stem in stems), None)


class _Alone:
    """Which sources, and which roots of a source, hold films without masks or masks alone."""

    def __init__(
        self, films: Iterable[Key], masks: Iterable[Key], unpaired: Sequence[Image]
    ) -> None:
        paired = set(masks)
        self._film_sources = {key.source for key in films}
        self._mask_sources = {image.member[0] for image in unpaired}
        self._mask_sources |= {key.source for key in paired}
        self._film_roots = {(key.source, key.root) for key in films}
        self._paired_roots = {(key.source, key.root) for key in paired}

    def may_join(self, film: Key, mask: Key) -> bool:
        if film.source != mask.source:
            is_apart = film.source not in self._mask_sources
            return is_apart and mask.source not in self._film_sources
        if (film.source, film.root) in self._paired_roots:
            return False
        if (mask.source, mask.root) in self._film_roots:
            return False
        is_nested = f"{mask.root}/".startswith(f"{film.root}/" if film.root else "")
        is_nested |= f"{film.root}/".startswith(f"{mask.root}/" if mask.root else "")
        return is_nested or bool(JSRT.fullmatch(film.stem))


def _catalogue(
    films: dict[Key, list[Image]],
    masks: dict[Key, Masks],
    unpaired: Sequence[Image],
    ignored: Counter[str],
) -> Catalogue:
    catalogue = Catalogue()
    ids = unique_ids(films)
    for key in sorted(films, key=ids.__getitem__):
        film_masks = masks.pop(key, {})
        sides = _sides(film_masks)
        unused = [side for side in film_masks if side not in sides]
        ignored[SECOND_MASK] += sum(len(film_masks[side]) for side in unused)
        for first, *others in [films[key], *(film_masks[side] for side in sides)]:
            catalogue.copies.extend((first.member, copy.member) for copy in others)
        members = {side: film_masks[side][0].member for side in sides}
        catalogue.films.append(_film_files(ids[key], key, films[key][0].member, members))
        if not sides:
            catalogue.without_mask.append(ids[key])
        if len(sides) == 1 and LUNGS not in sides:
            catalogue.one_lung.append(ids[key])
    catalogue.masks_without_film.extend(sorted(image.member[1] for image in unpaired))
    catalogue.layouts.update(Counter(images[0].layout for images in films.values()))
    # Unary plus drops the reasons with a count of zero.
    catalogue.ignored.update(+ignored)
    return catalogue


def _sides(masks: Masks) -> list[str]:
    """Left and right if both exist, else the mask of both lungs, else the mask of one lung."""
    if LEFT in masks and RIGHT in masks:
        return [LEFT, RIGHT]
    return [LUNGS] if LUNGS in masks else list(masks)


def _film_files(film_id: str, key: Key, film: Member, masks: dict[str, Member]) -> FilmFiles:
    family = FAMILY.fullmatch(key.stem)
    if not family:
        return FilmFiles(film_id, film_id, "custom", "unknown", film, masks)
    source, label = FAMILY_SOURCES[family[2]], LABELS.get(family[3], "unknown")
    return FilmFiles(film_id, family[1], source, label, film, masks)
