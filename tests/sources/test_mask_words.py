"""Names that say "mask": what predict passes over, and what is trained on or refused."""

from __future__ import annotations

import time

import pytest

from jobs.sources import mask_names
from jobs.sources.folder_roles import says_mask
from jobs.sources.layouts import films_to_mask, reason_to_skip, recognise

OTHER = "masks of something else than lungs"


def pairs(*names: str) -> dict[str, list[str]]:
    """{film: its masks} of the names of one source."""
    films = recognise([list(names)]).films
    return {film.film[1]: [mask[1] for mask in film.masks.values()] for film in films}


@pytest.mark.parametrize(
    "folder",
    [
        *("predicted_masks", "masks_pred", "masks_v2", "masks2", "masks (copy)", "2d masks"),
        *("covid masks", "infectionmasks", "pulmonary masks", "Lungenmasken", "Mes masques"),
        *("images/old_masks", "ward/vessel masks/left"),
    ],
)
def test_masks_in_a_folder_that_says_no_more_are_neither_films_nor_lungs(folder: str) -> None:
    names = [f"{folder}/1.png", "images/1.png"]
    assert films_to_mask(names)[1] == {names[0]: "masks"}
    assert reason_to_skip(names[0]) == "masks"
    catalogue = recognise([names])
    assert [film.masks for film in catalogue.films] == [{}]
    assert catalogue.ignored == {OTHER: 1}


@pytest.mark.parametrize(
    "folder",
    ["masked", "unmasked films", "images and masks", "without masks", "no mask", "maskell", "org"],
)
def test_a_folder_that_only_sounds_like_masks_holds_films(folder: str) -> None:
    assert not says_mask(folder)
    assert films_to_mask([f"{folder}/1.png"])[1] == {}


@pytest.mark.parametrize(
    ("films", "masks"),
    [
        *(("Bilder", "Masken"), ("images", "masques"), ("imágenes", "máscaras")),
        *(("imagenes", "mascaras"), ("immagini", "maschere"), ("imagens", "Máscaras")),
        *(("图像", "掩码"), ("画像", "マスク"), ("изображения", "маски")),
        *(("images", "Segmentation_Masks"), ("images", "Lung Segmentation Masks")),
    ],
)
def test_folders_in_other_languages_are_paired(films: str, masks: str) -> None:
    names = (f"{films}/1.png", f"{masks}/1.png")
    assert pairs(*names) == {names[0]: [names[1]]}
    assert films_to_mask(names) == ({"1": names[0]}, {names[1]: "masks"})


@pytest.mark.parametrize(
    "mask",
    ["c1 (mask)", "c1(mask)", "c1[mask]", "c1_Maske", "c1_掩码", "máscara c1", "c1_labelmap"],
)
def test_a_mask_is_paired_by_its_word_in_brackets_or_another_language(mask: str) -> None:
    assert pairs("c1.png", f"{mask}.png") == {"c1.png": [f"{mask}.png"]}
    assert pairs("images/c1.png", f"masks/{mask}.png") == {"images/c1.png": [f"masks/{mask}.png"]}


@pytest.mark.parametrize(
    "mask",
    ["c1_mask_2", "c1_mask1", "c1_mask copy", "c1_mask (1)", "c1_mask_v2", "mask", "MASK(2)"],
)
def test_a_copy_of_a_mask_is_no_film_and_is_not_trained_on(mask: str) -> None:
    names = ["c1.png", f"{mask}.png"]
    assert films_to_mask(names)[1] == {names[1]: "masks"}
    assert reason_to_skip(names[1]) == "masks"
    assert pairs(*names) == {}


@pytest.mark.parametrize("stem", ["unmasked 1", "maskell", "masked_1", "mask12c", "damask"])
def test_a_stem_that_only_sounds_like_a_mask_is_none(stem: str) -> None:
    assert not mask_names.is_marked(stem)


def test_a_long_stem_is_judged_at_once() -> None:
    start = time.perf_counter()
    for stem in ("mask" + "1" * 240 + "x", "-" * 240 + "mask-x!", "mask" + " copy" * 48 + "x"):
        mask_names.is_marked(stem)
        list(mask_names.readings(stem))
    assert time.perf_counter() - start < 1


def test_a_folder_of_another_organ_beside_folders_of_masks_has_masks() -> None:
    masks = ("left lung/JPCLN001.gif", "right lung/JPCLN001.gif", "heart/JPCLN001.gif")
    names = ("images/JPCLN001.png", *masks)
    assert pairs(*names) == {names[0]: list(masks[:2])}
    assert films_to_mask(names) == ({"JPCLN001": names[0]}, dict.fromkeys(sorted(masks), "masks"))


def test_a_ward_that_is_named_by_an_organ_has_films() -> None:
    names = ["heart/1.png", "lungs/2.png", "ward/masks/3.png"]
    assert films_to_mask(names)[1] == {names[2]: "masks"}
