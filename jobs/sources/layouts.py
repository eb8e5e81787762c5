"""Which files are films, which are their masks: by names alone, wherever they are nested.

    montgomery        .../CXR_png/<stem>.png, .../ManualMask/{leftMask,rightMask}/<stem>.png
    shenzhen          .../CXR_png/CHNCXR_*.png; masks <stem>_mask.png, often from another source
    masks-and-labels  .../Lung Segmentation/{CXR_png,test,masks}/
    plain             .../{images,image}/<stem>.*, .../{masks,mask}/<stem>[_mask].*
    films             images in no such folder, when the source knows no other films

MCUCXR_, CHNCXR_ and PHANTOM_ names are ids of their own, the same film wherever they stand. Any
other name is one film a folder: its masks stand under the same root, or in a source of masks only.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

Member = tuple[int, str]  # (index of the source, name in it)

IMAGES = {".png", ".jpg", ".jpeg", ".tif", ".tiff"}
TEXTS = {".txt", ".csv", ".tsv", ".xml", ".json", ".md", ".pdf", ".html", ".xls", ".xlsx", ".docx"}
SYSTEM = {"thumbs.db", "desktop.ini", ".ds_store", "__macosx"}

FAMILY = re.compile(r"((MCUCXR|CHNCXR|PHANTOM)_[0-9]+)_([0-9])")
ANY_SOURCE = -1
FAMILY_SOURCES = {"MCUCXR": "montgomery", "CHNCXR": "shenzhen", "PHANTOM": "phantoms"}
LABELS = {"0": "normal", "1": "abnormal"}

FILM, LUNGS, LEFT, RIGHT, LOOSE = "film", "lungs", "left", "right", "loose"
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
# Kaggle repeats a folder's name (mask/mask/...), and Montgomery has its masks one folder deeper.
NOT_A_ROOT = {*ROLES, "manualmask"}

LONGEST_ID = 128
NAMED = 10


@dataclass(frozen=True)
class FilmFiles:
    """One film: `id` is safe in a file name and an S3 key; `masks` by left, right or lungs."""

    id: str
    patient: str
    source: str
    label: str
    film: Member
    masks: dict[str, Member]

    @property
    def is_family(self) -> bool:
        """Whether it is of a set whose names tell the patient and the label."""
        return self.source in FAMILY_SOURCES.values()


@dataclass(frozen=True)
class Catalogue:
    """Every name given is in here once: film, mask, copy, mask without film, or ignored."""

    films: list[FilmFiles] = field(default_factory=list)  # sorted by id
    layouts: dict[str, int] = field(default_factory=dict)  # layout: films
    without_mask: list[str] = field(default_factory=list)  # ids
    one_lung: list[str] = field(default_factory=list)  # ids of films with one lung's mask only
    masks_without_film: list[str] = field(default_factory=list)  # names
    copies: list[tuple[Member, Member]] = field(default_factory=list)  # (kept, the same id again)
    ignored: dict[str, int] = field(default_factory=dict)  # reason: names


@dataclass(frozen=True)
class Key:
    """What a film and its masks have in common."""

    source: int
    root: str
    within: str
    stem: str

    @property
    def is_family(self) -> bool:
        return self.source == ANY_SOURCE


@dataclass(frozen=True)
class Image:
    member: Member
    role: str
    layout: str
    key: Key


Masks = dict[str, list[Image]]  # side: the first is kept, the rest repeat it


def recognise(names: Sequence[Sequence[str]]) -> Catalogue:
    """Sort the names of each source joined by "+" into films with their masks and the rest."""
    ignored: Counter[str] = Counter()
    films: dict[Key, list[Image]] = defaultdict(list)
    masks: dict[Key, Masks] = defaultdict(lambda: defaultdict(list))
    for source, source_names in enumerate(names):
        reasons = {name: _reason_to_ignore(name) for name in sorted(source_names)}
        ignored.update(filter(None, reasons.values()))
        images = [_place(source, name) for name, reason in reasons.items() if not reason]
        kept = _without_strays(images)
        ignored["images outside a film or mask folder"] += len(images) - len(kept)
        for image in kept:
            if image.role in (FILM, LOOSE):
                films[image.key].append(image)
            else:
                masks[image.key][image.role].append(image)
    _join_across_sources(films, masks)
    return _catalogue(films, masks, ignored)


def describe(catalogue: Catalogue) -> list[str]:
    """What was found, for a person, a line each."""
    layouts = ", ".join(f"{layout} {n}" for layout, n in sorted(catalogue.layouts.items()))
    pairs = len(catalogue.films) - len(catalogue.without_mask)
    lines = [
        f"films: {len(catalogue.films)} ({layouts or 'no layout known'}), with a mask: {pairs}"
    ]
    for title, found in (
        ("films without a mask", catalogue.without_mask),
        ("films with one lung's mask only", catalogue.one_lung),
        ("masks without a film", catalogue.masks_without_film),
    ):
        if found:
            more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
            lines.append(f"{title}: {len(found)} ({', '.join(found[:NAMED])}{more})")
    if catalogue.copies:
        lines.append(f"files that repeat a film or mask: {len(catalogue.copies)}")
    if catalogue.ignored:
        reasons = ", ".join(f"{reason} {n}" for reason, n in sorted(catalogue.ignored.items()))
        lines.append(f"files ignored: {sum(catalogue.ignored.values())} ({reasons})")
    return lines


def is_film(name: str) -> bool:
    """Whether a name is a film's, told without the names around it; a mask's is not."""
    return not _reason_to_ignore(name) and _place(0, name).role in (FILM, LOOSE)


def film_id(name: str) -> str:
    """An id from the film's name alone, which stays as other films come and go."""
    return _with_digest(_safe(os.path.splitext(name)[0]), name)


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


def _place(source: int, name: str) -> Image:
    """The image's role, layout and key, from its nearest folder that has a role."""
    # Names from macOS are decomposed; a film and its mask may come from different machines.
    path, _, file = unicodedata.normalize("NFC", name).rpartition("/")
    stem = os.path.splitext(file)[0]
    role, layout, root, within = _folder(path)
    if stem.lower().endswith("_mask"):
        stem = stem[: -len("_mask")]
        role = role if role in (LEFT, RIGHT) else LUNGS
    if layout == "montgomery" and stem.startswith("CHNCXR_"):
        layout = "shenzhen"
    key = Key(source, root, within, stem)
    if FAMILY.fullmatch(stem):
        key = Key(ANY_SOURCE, "", "", stem)
        role = FILM if role == LOOSE else role
    return Image((source, name), role, layout, key)


@lru_cache(maxsize=4096)
def _folder(path: str) -> tuple[str, str, str, str]:
    """(role, layout, the root above the folder with the role, the path within it)."""
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
    """Loose images are films in a source without film folders, and beside masks if it has any."""
    masks = {image.key for image in images if image.role not in (FILM, LOOSE)}
    has_film_folder = any(image.role == FILM and image.layout != "films" for image in images)
    paired = {i.key.root for i in images if i.role == LOOSE and i.key in masks}

    def is_film(loose: Image) -> bool:
        return not has_film_folder and (not masks or loose.key.root in paired)

    return [image for image in images if image.role != LOOSE or is_film(image)]


def _join_across_sources(films: dict[Key, list[Image]], masks: dict[Key, Masks]) -> None:
    """Pair films of sources without masks and masks of sources without films, by a unique stem."""
    film_sources, mask_sources = {key.source for key in films}, {key.source for key in masks}
    lonely_films = _by_stem(key for key in films if key.source not in mask_sources)
    lonely_masks = _by_stem(key for key in masks if key.source not in film_sources)
    for stem, keys in lonely_masks.items():
        if len(keys) == len(lonely_films.get(stem, ())) == 1:
            masks[lonely_films[stem][0]] = masks.pop(keys[0])


def _by_stem(keys: Iterable[Key]) -> dict[str, list[Key]]:
    found: dict[str, list[Key]] = defaultdict(list)
    for key in keys:
        found[key.stem].append(key)
    return found


def _catalogue(
    films: dict[Key, list[Image]], masks: dict[Key, Masks], ignored: Counter[str]
) -> Catalogue:
    catalogue = Catalogue()
    ids = _ids(films)
    for key in sorted(films, key=ids.__getitem__):
        found = masks.pop(key, {})
        sides = _sides(found)
        ignored["second mask of a film"] += sum(len(found[s]) for s in found if s not in sides)
        for kept, *rest in [films[key], *(found[side] for side in sides)]:
            catalogue.copies.extend((kept.member, copy.member) for copy in rest)
        chosen = {side: found[side][0].member for side in sides}
        catalogue.films.append(_film_files(ids[key], key, films[key][0].member, chosen))
        if not sides:
            catalogue.without_mask.append(ids[key])
        if len(sides) == 1 and LUNGS not in sides:
            catalogue.one_lung.append(ids[key])
    unpaired = (image for sides in masks.values() for side in sides.values() for image in side)
    catalogue.masks_without_film.extend(sorted(image.member[1] for image in unpaired))
    catalogue.layouts.update(Counter(found[0].layout for found in films.values()))
    catalogue.ignored.update(+ignored)
    return catalogue


def _sides(found: Masks) -> list[str]:
    """Both lungs where they are there, otherwise one mask of both, otherwise what there is."""
    if LEFT in found and RIGHT in found:
        return [LEFT, RIGHT]
    return [LUNGS] if LUNGS in found else list(found)


def _film_files(film_id: str, key: Key, film: Member, masks: dict[str, Member]) -> FilmFiles:
    family = FAMILY.fullmatch(key.stem)
    if not family:
        return FilmFiles(film_id, film_id, "custom", "unknown", film, masks)
    source, label = FAMILY_SOURCES[family[2]], LABELS.get(family[3], "unknown")
    return FilmFiles(film_id, family[1], source, label, film, masks)


def _ids(keys: Iterable[Key]) -> dict[Key, str]:
    """The stem where it is unique, with its folders where it is not; safe characters only."""
    keys = list(keys)
    stems = Counter(key.stem for key in keys)
    names = {}
    for key in keys:
        parts = (key.stem,) if stems[key.stem] == 1 else (key.root, key.within, key.stem)
        names[key] = _safe("_".join(filter(None, parts)))
    # Some file systems do not tell upper from lower case.
    taken = Counter(name.lower() for name in names.values())
    for key, name in names.items():
        if not key.is_family and (taken[name.lower()] > 1 or len(name) > LONGEST_ID):
            full = f"{key.source}/{key.root}/{key.within}/{key.stem}"
            names[key] = _with_digest(name, full)
    return names


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name)


def _with_digest(name: str, full: str) -> str:
    digest = hashlib.sha256(full.encode()).hexdigest()[:8]
    return f"{name[: LONGEST_ID - 9]}-{digest}"
