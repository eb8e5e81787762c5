"""Layouts of public sets beyond Montgomery and Shenzhen, by the names that they are served with."""

from __future__ import annotations

import random

import pytest

from jobs.sources import mask_names
from jobs.sources.folder_roles import folder_of
from jobs.sources.layouts import films_to_mask, recognise
from jobs.sources.names_in_turn import NamesInTurn

NUMBERS = range(1, 25)


def masks_of(*names: str) -> dict[str, dict[str, str]]:
    """{film: {side: mask}} of the names of one source."""
    films = recognise([list(names)]).films
    return {film.film[1]: {side: mask[1] for side, mask in film.masks.items()} for film in films}


def test_the_lung_masks_of_covid_qu_ex_are_used_and_its_infection_masks_never() -> None:
    root = "Infection Segmentation Data/Infection Segmentation Data/Train/COVID-19"
    names = [
        f"{root}/{kind}/covid_{n}.png"
        for kind in ("images", "lung masks", "infection masks")
        for n in NUMBERS
    ]
    catalogue = recognise([names])
    assert all(
        film.masks == {"lungs": (0, film.film[1].replace("/images/", "/lung masks/"))}
        for film in catalogue.films
    )
    assert len(catalogue.films) == 24
    assert catalogue.ignored == {"masks of something else than lungs": 24}


def test_infection_masks_alone_are_never_lungs() -> None:
    names = ("a/images/1.png", "a/infection masks/1.png", "b/images/2.png", "b/masks/heart/2.png")
    assert masks_of(*names) == {"a/images/1.png": {}, "b/images/2.png": {}}


def test_ground_truths_that_do_not_say_lung_are_never_lungs() -> None:
    names = [f"QaTa/Train Set/Images/s{n}.png" for n in NUMBERS]
    names += [f"QaTa/Train Set/Ground-truths/mask_s{n}.png" for n in NUMBERS]
    catalogue = recognise([names])
    assert len(catalogue.without_mask) == 24


@pytest.mark.parametrize("ending", [".gif", ".png"])
@pytest.mark.parametrize("films", ["images/", "JSRT/images/", "JSRT/All247images/", ""])
def test_scrs_folders_of_left_and_right_lungs_are_the_masks_of_jsrts_films(
    films: str, ending: str
) -> None:
    names = [f"{films}JPCLN{n:03}.png" for n in NUMBERS]
    for n in NUMBERS:
        for part in ("left lung", "right lung", "heart", "left clavicle", "right clavicle"):
            names.append(f"scratch/fold{1 + n % 2}/masks/{part}/JPCLN{n:03}{ending}")
    catalogue = recognise([names])
    assert len(catalogue.films) == 24
    for film in catalogue.films:
        stem = film.film[1][-12:-4]
        fold = f"scratch/fold{1 + int(stem[-3:]) % 2}/masks"
        assert film.masks == {
            side: (0, f"{fold}/{side} lung/{stem}{ending}") for side in ("left", "right")
        }
    assert catalogue.ignored["masks of something else than lungs"] == 72


@pytest.mark.parametrize(
    ("film", "mask"),
    [
        ("Segmentation01/train/org/case1.png", "Segmentation01/train/label/case1.png"),
        ("s/org_train/case1.bmp", "s/label_train/case1_label.png"),
        ("set/img/1.png", "set/labels/1.png"),
        ("set/CXRs/1.png", "set/Lung_Masks/1.png"),
        ("set/images_001/1.png", "set/masks_001/1.png"),
        ("set/train/1.png", "set/train_masks/1_mask.gif"),
        ("set/films/1.png", "set/lung segmentations/1.png"),
        ("images/c1.png", "fold1/masks/c1.png"),
        ("train/images/c1.png", "masks/c1.png"),
        ("images/c1.png", "masks/c1-mask.png"),
        ("images/c1.png", "masks/c1_seg.png"),
        ("images/c1.png", "masks/c1_label.png"),
        ("images/c1.png", "masks/c1msk.png"),
        ("images/c1.png", "masks/mask_c1.png"),
        ("images/c1.png", "masks/c1_lung.png"),
        ("images/c1.png", "masks/c1_lung_mask.png"),
        ("images/c1.png", "masks/Segmentation-c1.png"),
        ("c1.png", "c1-mask.png"),
        ("c1.png", "c1_seg.png"),
        ("c1.png", "mask_c1.png"),
    ],
)
def test_a_film_and_its_mask_are_paired_by_folder_and_affix(film: str, mask: str) -> None:
    assert masks_of(mask, film) == {film: {"lungs": mask}}


def test_the_two_org_and_label_folders_of_a_split_are_not_mixed() -> None:
    names = [f"s/{kind}_{split}/1.png" for kind in ("org", "label") for split in ("train", "test")]
    assert masks_of(*names) == {
        f"s/org_{split}/1.png": {"lungs": f"s/label_{split}/1.png"} for split in ("train", "test")
    }


def test_the_lungs_sides_are_read_from_the_masks_names() -> None:
    names = ("images/c1.png", "masks/c1_left_lung.png", "masks/c1_right_mask.png")
    assert masks_of(*names) == {"images/c1.png": {"left": names[1], "right": names[2]}}


def test_a_mask_with_the_films_whole_name_goes_before_one_with_an_affix() -> None:
    names = ("images/p.png", "images/p_left.png", "masks/p.png", "masks/p_left.png")
    assert masks_of(*names) == {
        "images/p.png": {"lungs": "masks/p.png"},
        "images/p_left.png": {"lungs": "masks/p_left.png"},
    }


@pytest.mark.parametrize("folder", ["masks", "org", "lungs", "COVID-19", "normal", "label maps"])
def test_a_folder_of_a_class_of_films_below_images_is_no_role(folder: str) -> None:
    assert folder_of(f"images/{folder}").role == {"masks": "lungs", "org": "film"}.get(
        folder, "film"
    )


def test_classes_of_findings_below_masks_are_lungs() -> None:
    for finding in ("COVID", "Lung_Opacity", "Nodule", "Viral Pneumonia", "Effusion"):
        names = (f"images/{finding}/1.png", f"masks/{finding}/1.png")
        assert masks_of(*names) == {names[0]: {"lungs": names[1]}}


def test_the_four_classes_of_covid_19_radiography_are_paired_each_for_itself() -> None:
    root = "COVID-19_Radiography_Dataset"
    classes = ("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia")
    films = [f"{root}/{kind}/images/{kind}-{n}.png" for kind in classes for n in NUMBERS]
    masks = [film.replace("/images/", "/masks/") for film in films]
    texts = [f"{root}/{kind}.metadata.xlsx" for kind in classes] + [f"{root}/README.md.txt"]
    assert masks_of(*films, *masks) == {
        film: {"lungs": mask} for film, mask in zip(films, masks, strict=True)
    }
    assert recognise([films + masks + texts]).ignored == {"text and metadata": 5}


def test_a_stem_without_affixes_has_one_reading() -> None:
    assert [reading.stem for reading in mask_names.readings("mask")] == ["mask"]
    assert [reading.stem for reading in mask_names.readings("unmasked1")] == ["unmasked1"]


@pytest.mark.parametrize(
    "names",
    [
        ["images/film1.png", "film2.png", "film3.png"],
        ["ward1/film1.png", "ward2/film2.png"],
        ["p_left.png", "p_right.png"],
        ["images/1.png", "1.png", "other/1.jpg", "other/1.png"],
        ["MCUCXR_0001_0.png", "again/MCUCXR_0001_0.png"],
        ["test/1.png", "CXR_png/1.png"],
        ["lungs/1.png", "org/2.gif", "x/3.BMP", "4.webp", "5.jp2", "6.jfif"],
    ],
)
def test_every_image_that_is_no_mask_is_a_film_to_mask(names: list[str]) -> None:
    films, skipped = films_to_mask([*names, "ward2/masks/film2.png"])
    assert sorted(films.values()) == sorted(names)
    assert skipped == {"ward2/masks/film2.png": "masks"}


NAMES = [
    *(
        "c1.png",
        "c1_seg.png",
        "c1-gt.png",
        "seg_c1.png",
        "c2_seg.png",
        "c3 (mask).png",
        "notes.txt",
    ),
    *("a/c1.png", "a/b/c1_seg.png", "a/c1_label.tif", "images/1.png", "images/1_seg.png"),
    *("masks/1.png", "masks/1_seg.png", "images/2_seg.png", "images/2.png", "._c1.png"),
    *("jsrt/heart/JPCLN001.gif", "jsrt/left lung/JPCLN001.gif", "jsrt/images/JPCLN001.png"),
    *("ward/heart/1.png", "ward/heart/1_lungs.png", "CHNCXR_0001_0.png", "CHNCXR_0001_0_seg.png"),
]


@pytest.mark.parametrize("seed", range(5))
def test_names_that_come_one_at_a_time_are_skipped_for_the_same_reasons(seed: int) -> None:
    names = random.Random(seed).sample(NAMES, len(NAMES))
    in_turn = NamesInTurn()
    at_once = {name: in_turn.reason_to_skip(name) for name in names if not in_turn.note(name)}
    reasons = {name: in_turn.reason_to_skip(name) for name in names}
    assert {name: reason for name, reason in reasons.items() if reason} == films_to_mask(names)[1]
    # A reason that was given before the last name was noted stays.
    assert at_once.items() <= reasons.items()


def test_films_to_mask_keep_the_ids_of_films_to_train_on() -> None:
    names = [f"{root}/images/{n}.png" for root in ("a", "b") for n in range(3)]
    names += ["images/x 1.png", "images/MCUCXR_0001_0.png"]
    films, _ = films_to_mask(names)
    assert films == {film.id: film.film[1] for film in recognise([names]).films}
