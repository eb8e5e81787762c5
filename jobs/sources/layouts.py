"""Which files are films and which are their masks: by their names alone, however deep the folders.

    montgomery        .../CXR_png/<stem>.png, .../ManualMask/{leftMask,rightMask}/<stem>.png
    shenzhen          .../CXR_png/CHNCXR_*.png; masks <stem>_mask.png, often from another source
    masks-and-labels  .../Lung Segmentation/{CXR_png,test,masks}/
    plain             .../{images,image}/<stem>.*, .../{masks,mask}/<stem>[_mask].*
    films             images outside such folders, if the source has no other films

A name MCUCXR_*, CHNCXR_* or PHANTOM_* identifies a film in every folder and source. Any other name
identifies a film of its folder; its masks are below the same root, or in a source of masks alone.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from jobs.sources.film_ids import ANY_SOURCE, Key, unique_ids

# (index of the source, name in the source)
Member = tuple[int, str]

IMAGES = {".png", ".jpg", ".jpeg", ".tif", ".tiff"}
TEXTS = {".txt", ".csv", ".tsv", ".xml", ".json", ".md", ".pdf", ".html", ".xls", ".xlsx", ".docx"}
SYSTEM = {"thumbs.db", "desktop.ini", ".ds_store", "__macosx"}

# Public sets whose names hold the patient and, in the last digit, the label.
FAMILY = re.compile(r"((MCUCXR|CHNCXR|PHANTOM)_[0-9]+)_([0-9])")
FAMILY_SOURCES = {"MCUCXR": "montgomery", "CHNCXR": "shenzhen", "PHANTOM": "phantoms"}
LABELS = {"0": "normal", "1": "abnormal"}

FILM, LUNGS, LEFT, RIGHT, LOOSE = "film", "lungs", "left", "right", "loose"
# The role of the images in a folder, by its name or by "parent/name", in lower case.
ROLES = {
    "cxr_png": FILM,
    "images": FILM,
    "image": FILM,
    "lung segmentation/test": FILM,
    "masks": LUNGS,
    "mask": LUNGS,
    "leftmask": LEFT,
    "rightmask": RIGHT,
}
# Kaggle repeats a folder's name (mask/mask/...); Montgomery's masks are one folder deeper.
NOT_A_ROOT = {*ROLES, "manualmask"}

# Names listed in a line of the log.
NAMED = 10


@dataclass(frozen=True)
class FilmFiles:
    """One film and its masks, keyed left, right or lungs.

    `id` is safe in file names and S3 keys; `source` is montgomery, shenzhen, phantoms or custom;
    `label` is normal, abnormal or unknown.
    """

    id: str
    patient: str
    source: str
    label: str
    film: Member
    masks: dict[str, Member]

    @property
    def is_family(self) -> bool:
        """Whether the film is of a set whose names hold the patient and the label."""
        return self.source in FAMILY_SOURCES.values()


@dataclass(frozen=True)
class Catalogue:
    """What the names of all sources are; each name counts exactly once.

    Attributes:
        films: sorted by id.
        layouts: number of films by layout.
        without_mask, one_lung: ids of films without a mask, with the mask of one lung only.
        masks_without_film: names.
        copies: (first file, another file) of the same film, or of the same mask of a film.
        ignored: number of names by reason.
    """

    films: list[FilmFiles] = field(default_factory=list)
    layouts: dict[str, int] = field(default_factory=dict)
    without_mask: list[str] = field(default_factory=list)
    one_lung: list[str] = field(default_factory=list)
    masks_without_film: list[str] = field(default_factory=list)
    copies: list[tuple[Member, Member]] = field(default_factory=list)
    ignored: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Image:
    member: Member
    role: str
    layout: str
    key: Key


# By left, right or lungs; the first image is the mask, the others are copies.
Masks = dict[str, list[Image]]


def recognise(names: Sequence[Sequence[str]]) -> Catalogue:
    """Sort the names of each source into films, their masks and all other files."""
    ignored: Counter[str] = Counter()
    films: dict[Key, list[Image]] = defaultdict(list)
    masks: dict[Key, Masks] = defaultdict(lambda: defaultdict(list))
    for source, source_names in enumerate(names):
        reasons = {name: _reason_to_ignore(name) for name in sorted(source_names)}
        ignored.update(filter(None, reasons.values()))
        images = [_classify(source, name) for name, reason in reasons.items() if not reason]
        films_and_masks = _without_strays(images)
        ignored["images outside a film or mask folder"] += len(images) - len(films_and_masks)
        for image in films_and_masks:
            if image.role in (FILM, LOOSE):
                films[image.key].append(image)
            else:
                masks[image.key][image.role].append(image)
    _join_across_sources(films, masks)
    return _catalogue(films, masks, ignored)


def describe(catalogue: Catalogue) -> list[str]:
    """The catalogue in lines for the log."""
    layouts = ", ".join(f"{layout} {n}" for layout, n in sorted(catalogue.layouts.items()))
    pairs = len(catalogue.films) - len(catalogue.without_mask)
    lines = [
        f"films: {len(catalogue.films)} ({layouts or 'no layout known'}), with a mask: {pairs}"
    ]
    for title, names in (
        ("films without a mask", catalogue.without_mask),
        ("films with one lung's mask only", catalogue.one_lung),
        ("masks without a film", catalogue.masks_without_film),
    ):
        if names:
            more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
            lines.append(f"{title}: {len(names)} ({', '.join(names[:NAMED])}{more})")
    if catalogue.copies:
        lines.append(f"files that repeat a film or mask: {len(catalogue.copies)}")
    if catalogue.ignored:
        reasons = ", ".join(f"{reason} {n}" for reason, n in sorted(catalogue.ignored.items()))
        lines.append(f"files ignored: {sum(catalogue.ignored.values())} ({reasons})")
    return lines


def is_film(name: str) -> bool:
    """Whether a name is that of a film and not of a mask, independent of the other files."""
    return not _reason_to_ignore(name) and _classify(0, name).role in (FILM, LOOSE)


def _reason_to_ignore(name: str) -> str:
    parts = name.lower().split("/")
    if not SYSTEM.isdisjoint(parts) or parts[-1].startswith("._"):
        return "system files"
    if any(part.startswith(".") for part in parts):
        return "hidden files and folders"
    extension = os.path.splitext(parts[-1])[1]
    if extension in TEXTS:
        return "text and metadata"
    return "" if extension in IMAGES else "other files"


def _classify(source: int, name: str) -> Image:
    """The role, layout and key of an image, by the nearest folder above it that has a role."""
    # macOS decomposes names (NFD); a film and its mask may come from different machines.
    path, _, file = unicodedata.normalize("NFC", name).rpartition("/")
    stem = os.path.splitext(file)[0]
    role, layout, root, within = _folder(path)
    if stem.lower().endswith("_mask"):
        stem = stem[: -len("_mask")]
        # In leftMask/ and rightMask/ the folder decides the side.
        role = role if role in (LEFT, RIGHT) else LUNGS
    # Both sets have their films in CXR_png/.
    if layout == "montgomery" and stem.startswith("CHNCXR_"):
        layout = "shenzhen"
    key = Key(source, root, within, stem)
    if FAMILY.fullmatch(stem):
        key = Key(ANY_SOURCE, "", "", stem)
        role = FILM if role == LOOSE else role
    return Image((source, name), role, layout, key)


@lru_cache(maxsize=4096)
def _folder(path: str) -> tuple[str, str, str, str]:
    """(role, layout, the root above the folder with the role, the path below that folder)."""
    folders = path.split("/")
    lowered = path.lower().split("/")
    for depth in reversed(range(len(folders))):
        parent_and_folder = "/".join(lowered[max(0, depth - 1) : depth + 1])
        role = ROLES.get(lowered[depth]) or ROLES.get(parent_and_folder)
        if role:
            break
    else:
        return LOOSE, "films", path, ""
    root, within = folders[:depth], folders[depth + 1 :]
    while root and root[-1].lower() in NOT_A_ROOT:
        root.pop()
    layout = "montgomery" if lowered[depth] == "cxr_png" else "plain"
    layout = "masks-and-labels" if "lung segmentation" in lowered else layout
    return role, layout, "/".join(root), "/".join(within)


def _without_strays(images: list[Image]) -> list[Image]:
    """The images of one source, without loose images that are not films.

    A loose image is a film if the source has no film folder and, if the source has masks, one of
    them belongs to a loose image below the same root.
    """
    mask_keys = {image.key for image in images if image.role not in (FILM, LOOSE)}
    has_film_folder = any(image.role == FILM and image.layout != "films" for image in images)
    roots = {image.key.root for image in images if image.role == LOOSE and image.key in mask_keys}

    def is_film(loose: Image) -> bool:
        return not has_film_folder and (not mask_keys or loose.key.root in roots)

    return [image for image in images if image.role != LOOSE or is_film(image)]


def _join_across_sources(films: dict[Key, list[Image]], masks: dict[Key, Masks]) -> None:
    """Pair films of sources without masks and masks of sources without films, by a unique stem."""
    # Kaggle has the films and the masks of Shenzhen in two datasets.
    film_sources, mask_sources = {key.source for key in films}, {key.source for key in masks}
    film_keys = _by_stem(key for key in films if key.source not in mask_sources)
    mask_keys = _by_stem(key for key in masks if key.source not in film_sources)
    for stem, keys in mask_keys.items():
        if len(keys) == len(film_keys.get(stem, ())) == 1:
            masks[film_keys[stem][0]] = masks.pop(keys[0])


def _by_stem(keys: Iterable[Key]) -> dict[str, list[Key]]:
    stems: dict[str, list[Key]] = defaultdict(list)
    for key in keys:
        stems[key.stem].append(key)
    return stems


def _catalogue(
    films: dict[Key, list[Image]], masks: dict[Key, Masks], ignored: Counter[str]
) -> Catalogue:
    catalogue = Catalogue()
    ids = unique_ids(films)
    for key in sorted(films, key=ids.__getitem__):
        film_masks = masks.pop(key, {})
        sides = _sides(film_masks)
        unused = [side for side in film_masks if side not in sides]
        ignored["second mask of a film"] += sum(len(film_masks[side]) for side in unused)
        for first, *others in [films[key], *(film_masks[side] for side in sides)]:
            catalogue.copies.extend((first.member, copy.member) for copy in others)
        members = {side: film_masks[side][0].member for side in sides}
        catalogue.films.append(_film_files(ids[key], key, films[key][0].member, members))
        if not sides:
            catalogue.without_mask.append(ids[key])
        if len(sides) == 1 and LUNGS not in sides:
            catalogue.one_lung.append(ids[key])
    unpaired = (image for sides in masks.values() for side in sides.values() for image in side)
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
