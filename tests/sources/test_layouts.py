"""The films and masks that are recognised in names."""

from __future__ import annotations

import random
import re
import unicodedata

import pytest

from jobs.sources.catalogue import Catalogue, FilmFiles, describe
from jobs.sources.layouts import recognise

MONTGOMERY = "Montgomery/MontgomerySet"
CHINA = "ChinaSet_AllFiles/ChinaSet_AllFiles/CXR_png"
LABELS = "data/Lung Segmentation"


def only(catalogue: Catalogue) -> FilmFiles:
    (film,) = catalogue.films
    return film


def count_names(catalogue: Catalogue) -> int:
    """How many names the catalogue contains."""
    films = len(catalogue.films) + sum(len(film.masks) for film in catalogue.films)
    rest = len(catalogue.copies) + len(catalogue.masks_without_film)
    return films + rest + sum(catalogue.ignored.values())


@pytest.mark.parametrize("above", ["", MONTGOMERY + "/", "a/b c/d.e/"])
def test_montgomery_is_recognised_wherever_it_is_nested(above: str) -> None:
    names = [
        above + "CXR_png/MCUCXR_0001_0.png",
        above + "CXR_png/Thumbs.db",
        above + "ManualMask/leftMask/MCUCXR_0001_0.png",
        above + "ManualMask/rightMask/MCUCXR_0001_0.png",
    ]
    catalogue = recognise([names])
    assert only(catalogue) == FilmFiles(
        "MCUCXR_0001_0",
        "MCUCXR_0001",
        "montgomery",
        "normal",
        (0, names[0]),
        {"left": (0, names[2]), "right": (0, names[3])},
    )
    assert catalogue.layouts == {"montgomery": 1}
    assert catalogue.ignored == {"system files": 1}


def test_a_teams_own_films_in_the_montgomery_layout_are_paired() -> None:
    names = ["x/CXR_png/P-7.png", "x/ManualMask/leftMask/P-7.png", "x/ManualMask/rightMask/P-7.png"]
    film = only(recognise([names]))
    assert (film.id, film.patient, film.source, film.label) == ("P-7", "P-7", "custom", "unknown")
    assert set(film.masks) == {"left", "right"}


@pytest.mark.parametrize(
    ("stem", "patient", "source", "label"),
    [
        ("MCUCXR_0104_1", "MCUCXR_0104", "montgomery", "abnormal"),
        ("CHNCXR_0025_0", "CHNCXR_0025", "shenzhen", "normal"),
        ("PHANTOM_0003_1", "PHANTOM_0003", "phantoms", "abnormal"),
        ("CHNCXR_0025_7", "CHNCXR_0025", "shenzhen", "unknown"),
        ("CHNCXR_25", "CHNCXR_25", "custom", "unknown"),
    ],
)
def test_patient_source_and_label_are_in_the_stem(
    stem: str, patient: str, source: str, label: str
) -> None:
    film = only(recognise([[f"CXR_png/{stem}.png"]]))
    assert (film.id, film.patient, film.source, film.label) == (stem, patient, source, label)


def test_shenzhen_films_take_their_masks_from_another_source() -> None:
    films = [f"{CHINA}/CHNCXR_0001_0.png", f"{CHINA}/CHNCXR_0025_0.png", f"{CHINA}/Thumbs.db"]
    masks = ["mask/mask/CHNCXR_0001_0_mask.png", "mask/mask/CHNCXR_0099_1_mask.png"]
    catalogue = recognise([films, masks])
    assert catalogue.films[0].masks == {"lungs": (1, masks[0])}
    assert catalogue.layouts == {"shenzhen": 2}
    assert catalogue.without_mask == ["CHNCXR_0025_0"]
    assert catalogue.masks_without_film == [masks[1]]


@pytest.mark.parametrize("root", [LABELS, "Lung Segmentation", "deep/er/lung segmentation"])
def test_masks_and_labels_pairs_both_naming_styles(root: str) -> None:
    names = [
        f"{root}/CXR_png/CHNCXR_0001_0.png",
        f"{root}/CXR_png/CHNCXR_0002_1.png",
        f"{root}/CXR_png/MCUCXR_0001_0.png",
        f"{root}/masks/CHNCXR_0001_0_mask.png",
        f"{root}/masks/MCUCXR_0001_0.png",
        f"{root}/test/CHNCXR_0002_1.png",
        f"{root}/ClinicalReadings/CHNCXR_0001_0.txt",
        f"{root}/CXR_png/.ipynb_checkpoints/CHNCXR_0001_0-checkpoint.png",
    ]
    catalogue = recognise([names])
    assert catalogue.layouts == {"masks-and-labels": 3}
    assert catalogue.without_mask == ["CHNCXR_0002_1"]
    assert catalogue.copies == [((0, names[1]), (0, names[5]))]
    assert catalogue.ignored == {"text and metadata": 1, "hidden files and folders": 1}


NFC_FILM = unicodedata.normalize("NFC", "images/Röntgen.png")
NFD_MASK = unicodedata.normalize("NFD", "masks/Röntgen.png")


@pytest.mark.parametrize(
    ("film", "mask"),
    [
        ("images/a.png", "masks/a.png"),
        ("image/a.png", "mask/a.png"),
        ("Images/a.JPG", "Masks/a.PNG"),
        ("set/images/a.jpeg", "set/masks/a.tif"),
        ("images/scan 1.2.3 final.TIFF", "masks/scan 1.2.3 final_mask.png"),
        ("images/a.png", "masks/a_MASK.tiff"),
        ("images/p1/a.png", "masks/p1/a.png"),
        ("images/images/a.png", "masks/masks/a.png"),
        ("Chest-X-Ray/Chest-X-Ray/image/1.png", "Chest-X-Ray/Chest-X-Ray/mask/1.png"),
        ("a.png", "masks/a.png"),
        ("a.png", "a_mask.png"),
        (NFC_FILM, NFD_MASK),
    ],
)
def test_a_plain_film_and_its_mask_are_paired(film: str, mask: str) -> None:
    catalogue = recognise([[mask, film]])
    assert only(catalogue).film == (0, film)
    assert only(catalogue).masks == {"lungs": (0, mask)}
    assert catalogue.layouts == {"plain" if "mage" in film else "films": 1}


def test_the_same_stem_under_two_roots_is_two_films_with_their_own_masks() -> None:
    names = [f"{root}/{kind}/1.png" for root in ("a", "b") for kind in ("images", "masks")]
    catalogue = recognise([names])
    assert {film.id: film.masks["lungs"][1] for film in catalogue.films} == {
        "a_1": "a/masks/1.png",
        "b_1": "b/masks/1.png",
    }
    assert catalogue.copies == []


def test_a_mask_of_another_root_is_never_used() -> None:
    catalogue = recognise([["a/images/1.png", "b/masks/1.png"]])
    assert catalogue.without_mask == ["1"]
    assert catalogue.masks_without_film == ["b/masks/1.png"]


def test_of_two_files_of_one_film_the_second_is_a_copy() -> None:
    catalogue = recognise([["images/a.jpg", "images/a.png", "masks/a.png", "masks/a_mask.png"]])
    assert only(catalogue).film == (0, "images/a.jpg")
    assert catalogue.copies == [
        ((0, "images/a.jpg"), (0, "images/a.png")),
        ((0, "masks/a.png"), (0, "masks/a_mask.png")),
    ]


def test_a_film_of_a_public_set_in_two_sources_is_one_film_and_a_copy() -> None:
    first, second = f"{MONTGOMERY}/CXR_png/MCUCXR_0001_0.png", f"{LABELS}/CXR_png/MCUCXR_0001_0.png"
    sides = ("left", "right")
    left, right = (f"{MONTGOMERY}/ManualMask/{side}Mask/MCUCXR_0001_0.png" for side in sides)
    merged = f"{LABELS}/masks/MCUCXR_0001_0.png"
    catalogue = recognise([[first, left, right], [second, merged]])
    assert catalogue.copies == [((0, first), (1, second))]
    assert only(catalogue).masks == {"left": (0, left), "right": (0, right)}
    assert catalogue.ignored == {"second mask of a film": 1}


def test_a_mask_of_one_lung_is_used_and_its_film_is_listed() -> None:
    film = f"{MONTGOMERY}/CXR_png/MCUCXR_0001_0.png"
    names = [film, film.replace("CXR_png", "ManualMask/leftMask")]
    catalogue = recognise([names])
    assert set(only(catalogue).masks) == {"left"}
    assert catalogue.one_lung == ["MCUCXR_0001_0"]
    assert "films with one lung's mask only: 1 (MCUCXR_0001_0)" in describe(catalogue)


def test_custom_films_and_masks_pair_across_sources() -> None:
    films = ["set/images/a.png", "set/images/b.png"]
    masks = ["elsewhere/masks/a_mask.png", "elsewhere/masks/c.png"]
    catalogue = recognise([films, masks])
    assert catalogue.films[0].masks == {"lungs": (1, masks[0])}
    assert catalogue.without_mask == ["b"]
    assert catalogue.masks_without_film == [masks[1]]


def test_a_stem_that_is_not_unique_pairs_with_nothing_across_sources() -> None:
    catalogue = recognise([["x/images/1.png", "y/images/1.png"], ["masks/1.png"]])
    assert catalogue.without_mask == ["x_1", "y_1"]
    assert catalogue.masks_without_film == ["masks/1.png"]


def test_a_source_with_masks_uses_no_mask_of_another_source() -> None:
    catalogue = recognise([["images/1.png", "images/2.png", "masks/2.png"], ["masks/1.png"]])
    assert catalogue.without_mask == ["1"]


def test_masks_of_a_source_with_films_are_not_used_by_another_source() -> None:
    catalogue = recognise([["images/1.png"], ["images/2.png", "masks/1.png"]])
    assert catalogue.without_mask == ["1", "2"]
    assert catalogue.masks_without_film == ["masks/1.png"]


def test_the_same_names_in_two_sources_are_different_films() -> None:
    catalogue = recognise([["images/1.png", "masks/1.png"], ["images/1.png", "masks/1.png"]])
    assert len({film.id for film in catalogue.films}) == 2
    for film in catalogue.films:
        assert film.masks["lungs"][0] == film.film[0]


def test_images_in_any_folder_are_films_if_there_are_no_film_folders() -> None:
    names = ["a.png", "sub/b.JPG", "notes.txt", "MCUCXR_0001_0.png"]
    catalogue = recognise([names])
    assert [film.id for film in catalogue.films] == ["MCUCXR_0001_0", "a", "b"]
    assert catalogue.layouts == {"films": 3}
    assert catalogue.without_mask == ["MCUCXR_0001_0", "a", "b"]


def test_an_image_outside_the_film_folders_is_not_a_film() -> None:
    names = ["preview.png", "images/a.png", "masks/a.png", "docs/figure.jpg"]
    catalogue = recognise([names])
    assert [film.id for film in catalogue.films] == ["a"]
    assert catalogue.ignored == {"images outside a film or mask folder": 2}


def test_an_image_outside_the_mask_folders_of_another_source_is_not_a_film() -> None:
    catalogue = recognise([["images/a.png"], ["mask/mask/a_mask.png", "preview.png"]])
    assert only(catalogue).masks == {"lungs": (1, "mask/mask/a_mask.png")}
    assert catalogue.ignored == {"images outside a film or mask folder": 1}


def test_without_films_the_catalogue_counts_the_ignored_names() -> None:
    catalogue = recognise([["readme.txt", "model.h5"], []])
    assert catalogue == Catalogue(ignored={"text and metadata": 1, "other files": 1})
    assert describe(catalogue)[0] == "films: 0 (no layout known), with a mask: 0"


AWKWARD = ["a b", "a_b", "a+b", "A_b", "Röntgen", "患者", "病人", "x" * 300, "v1.2.3", "-", "q?%#"]


def test_ids_are_safe_in_file_names_and_keys_and_unique() -> None:
    names = [f"images/{stem}.png" for stem in AWKWARD]
    names += [f"{root}/images/{stem}.png" for root in ("s 1", "s_1") for stem in AWKWARD]
    ids = [film.id for film in recognise([names]).films]
    assert len(ids) == len(names) == len({film_id.lower() for film_id in ids})
    assert all(re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}", film_id) for film_id in ids)
    assert ids == sorted(ids)


def test_the_id_of_a_film_of_a_public_set_does_not_depend_on_other_names() -> None:
    ids = [film.id for film in recognise([["MCUCXR_0001_0.png", "MCUCXR 0001_0.png"]]).films]
    assert "MCUCXR_0001_0" in ids
    assert len(set(ids)) == 2


def test_the_order_of_names_does_not_change_the_catalogue() -> None:
    folders = [f"{root}/{kind}" for root in ("a", "b") for kind in ("images", "masks")]
    names = [f"{folder}/{number}.png" for folder in folders for number in range(20)]
    shuffled = random.Random(1).sample(names, len(names))
    assert recognise([names]) == recognise([shuffled])


FOLDERS = [
    "images",
    "mask",
    "masks",
    "CXR_png",
    "ManualMask",
    "leftMask",
    "rightMask",
    "Lung Segmentation",
    "test",
    "x",
    ".hidden",
    "__MACOSX",
]
STEMS = ["a", "b", "MCUCXR_0001_0", "CHNCXR_0002_1", "a_mask", "MCUCXR_0001_0_mask", "c.d"]


def random_name(rng: random.Random) -> str:
    """A name of folders, a stem and an extension that the layouts know, and of others."""
    folders = rng.choices(FOLDERS, k=rng.randrange(4))
    extension = rng.choice([".png", ".PNG", ".jpg", ".txt", ""])
    return "/".join([*folders, rng.choice(STEMS) + extension])


def test_every_name_is_in_the_catalogue_once() -> None:
    rng = random.Random(2)
    for _ in range(300):
        sources = [
            sorted({random_name(rng) for _ in range(rng.randrange(12))})
            for _ in range(rng.randrange(1, 4))
        ]
        catalogue = recognise(sources)
        assert count_names(catalogue) == sum(map(len, sources)), sources
        assert sum(catalogue.layouts.values()) == len(catalogue.films)
        members = [film.film for film in catalogue.films]
        members += [mask for film in catalogue.films for mask in film.masks.values()]
        assert len(members) == len(set(members))
        assert len({film.id for film in catalogue.films}) == len(catalogue.films)


def test_the_description_lists_ten_names_and_counts_the_others() -> None:
    names = [f"images/{number:02}.png" for number in range(14)] + ["masks/00.png", "masks/99.png"]
    names += ["readme.md", "images/Thumbs.db", "images/.b/x.png"]
    assert describe(recognise([names])) == [
        "films: 14 (plain 14), with a mask: 1",
        "films without a mask: 13 (01, 02, 03, 04, 05, 06, 07, 08, 09, 10 and 3 more)",
        "masks without a film: 1 (masks/99.png)",
        "files ignored: 3 (hidden files and folders 1, system files 1, text and metadata 1)",
    ]


def test_the_films_and_masks_of_the_default_source_are_paired() -> None:
    """The two datasets of the default --source, by the folder names that Kaggle serves."""
    folders = ("CXR_png", "ManualMask/leftMask", "ManualMask/rightMask")
    kmader = [f"{CHINA}/CHNCXR_{n:04}_{n > 326:d}.png" for n in range(1, 663)]
    for folder in folders:
        kmader += [f"{MONTGOMERY}/{folder}/MCUCXR_{n:04}_0.png" for n in range(1, 139)]
    masks = [f"mask/mask/CHNCXR_{n:04}_{n > 326:d}_mask.png" for n in range(1, 567)]
    catalogue = recognise([kmader, masks])
    assert catalogue.layouts == {"shenzhen": 662, "montgomery": 138}
    assert len(catalogue.films) - len(catalogue.without_mask) == 704
    assert catalogue.ignored == {}
