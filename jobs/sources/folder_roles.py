"""What the images in a folder are, by the folder's name: films, lung masks, or other masks.

Names are read word by word, whatever separates the words: "lung masks", "Lung-Masks", "leftMask".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

FILM, LUNGS, LEFT, RIGHT, LOOSE = "film", "lungs", "left", "right", "loose"
# Masks of something else than lungs, or of something that the name leaves open.
OTHER_MASK = "other mask"

FILM_NAMES = {
    *("image", "images", "img", "imgs", "org", "orig", "original", "originals"),
    *("cxr", "cxrs", "film", "films", "xray", "xrays", "x ray", "x rays"),
    *("bild", "bilder", "imagen", "imagenes", "imágenes", "imagem", "imagens", "immagine"),
    *("immagini", "图像", "画像", "изображения"),
}
# Masks in other languages are masks too: nobody translates folders before predict.
MASK_NOUNS = {
    *("mask", "masks", "msk", "msks", "maske", "masken", "masque", "masques", "mascara"),
    *("mascaras", "máscara", "máscaras", "maschera", "maschere", "маска", "маски"),
    *("掩码", "掩膜", "マスク", "마스크"),
}
MASK_WORDS = MASK_NOUNS | {"label", "labels", "seg", "segs", "segmentations"}
# A word that ends so, with a number or not: "predicted masks", "lungmask", "masks2".
MASK_ENDING = re.compile(rf"\w*({'|'.join(sorted(MASK_NOUNS))})\d*")
# With one of these words, a name that says "mask" is none of a folder of masks.
NO_MASKS = {"with", "without", "no", "not"}
# The truth about what? Public sets of infections use these words too.
OPEN_WORDS = {
    *("ground", "truth", "truths", "groundtruth", "groundtruths", "gt"),
    *("annotation", "annotations"),
}
LUNG_WORDS = {"lung", "lungs"}
SIDES = {"left": LEFT, "right": RIGHT}
# What public sets outline beside the lungs; their masks may lie in a folder of masks.
ORGANS = {
    *("heart", "hearts", "cardiac", "clavicle", "clavicles", "collarbone", "collarbones", "rib"),
    *("ribs", "spine", "bone", "bones", "trachea", "mediastinum", "diaphragm", "aorta", "body"),
    *("thorax", "scapula", "scapulas", "esophagus", "hilus", "hilum", "breast", "breasts"),
    *("infection", "infections", "lesion", "lesions", "device", "devices", "tube", "tubes"),
}
# Findings count only in a name that says "mask": elsewhere they are classes of films.
FINDINGS = {"infected", "nodule", "nodules", "pneumothorax", "consolidation", "effusion"}
SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing"}
# Words that change nothing.
FILLERS = {
    *("png", "jpg", "jpeg", "gif", "bmp", "tif", "tiff", "binary", "manual", "merged", "both"),
    *("combined", "resized", "the", "of", "and", "files"),
}
# The set "Lung Segmentation" has films without a mask in test/.
FILM_PATHS = {("lung segmentation", "test")}


class Folder(NamedTuple):
    """What a path of folders says of the images in it.

    Attributes:
        role: FILM, LUNGS, LEFT, RIGHT, OTHER_MASK, or LOOSE if no folder has a role.
        name: the folder with the role, in lower case, "" if none.
        root: the path above it; the split in a name such as "train_masks" is its last folder.
        within: the path below it.
    """

    role: str
    name: str
    root: str
    within: str


@lru_cache(maxsize=4096)
def says_mask(path: str) -> bool:
    """Whether a folder of `path` is said to hold masks, without saying that they are lungs.

    "predicted masks", "masks_v2", "infectionmasks"; not "masked", "images and masks", "no mask".
    """
    return any(_says_mask(set(_words(folder))) for folder in path.split("/"))


def is_organ(folder: str) -> bool:
    """Whether a folder is named by organs other than lungs alone: "heart", "Clavicles"."""
    words = set(_telling_words(folder))
    return bool(words) and words <= ORGANS


def _says_mask(words: set[str]) -> bool:
    return not words & (FILM_NAMES | NO_MASKS) and any(map(MASK_ENDING.fullmatch, words))


@lru_cache(maxsize=4096)
def folder_of(path: str) -> Folder:
    """The nearest folder of `path` ("a/b/c") that has a role, and the path around it."""
    folders = path.split("/")
    for depth in reversed(range(len(folders))):
        if role := _role(folders, depth):
            break
    else:
        return Folder(LOOSE, "", path, "")
    root, splits = folders[:depth], _split_words(folders[depth])
    # Kaggle repeats a folder's name: mask/mask/...
    while root and _role(root, len(root) - 1):
        splits = _split_words(root.pop()) + splits
    within = "/".join(folders[depth + 1 :])
    return Folder(role, folders[depth].lower(), "/".join(root + splits), within)


def _role(folders: Sequence[str], depth: int) -> str:
    """The role of the images in folders[depth], "" if its name says none."""
    above = folders[depth - 1] if depth else ""
    if (above.lower(), folders[depth].lower()) in FILM_PATHS:
        return FILM
    words = _telling_words(folders[depth])
    if " ".join(words) in FILM_NAMES:
        return FILM
    is_below_masks = any(
        _mask_role(set(_telling_words(folder)), is_below_masks=False) for folder in folders[:depth]
    )
    return _mask_role(set(words), is_below_masks=is_below_masks)


def _mask_role(words: set[str], *, is_below_masks: bool) -> str:
    """LUNGS, LEFT, RIGHT or OTHER_MASK, or "" if the words are not those of a mask folder."""
    says_mask = bool(words & (MASK_WORDS | OPEN_WORDS))
    others = ORGANS | FINDINGS if says_mask else ORGANS if is_below_masks else set()
    if words & others:
        return OTHER_MASK
    if says_mask:
        words = words - {"segmentation"}
    says_lung, sides = bool(words & LUNG_WORDS), [SIDES[word] for word in words & set(SIDES)]
    if not words or words - LUNG_WORDS - MASK_WORDS - OPEN_WORDS - set(SIDES):
        return ""
    if len(sides) == 1 and (says_mask or says_lung or is_below_masks):
        return sides[0]
    if words & OPEN_WORDS and not says_lung:
        return OTHER_MASK
    # A folder "lungs" may hold films, unless masks are above it.
    return LUNGS if says_mask or is_below_masks else ""


def _split_words(name: str) -> list[str]:
    return [word for word in _words(name) if _is_split(word)]


def _is_split(word: str) -> bool:
    return word in SPLITS or word.isdecimal()


def _telling_words(name: str) -> list[str]:
    return [word for word in _words(name) if not _is_split(word) and word not in FILLERS]


@lru_cache(maxsize=4096)
def _words(name: str) -> tuple[str, ...]:
    """The words of a folder's name in lower case; "leftMask" and "leftmask" are two words."""
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()
    parted = re.sub(r"\b(left|right|lungs?)(?=lungs?|masks?)", r"\1 ", parted)
    return tuple(re.findall(r"[^\W_]+", parted))
