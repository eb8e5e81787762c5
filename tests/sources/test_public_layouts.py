"""The public sets by the names that Kaggle serves, each whole and all in one prefix.

Counts are those of the sets' own pages: 662 Shenzhen films, of which 566 have a mask, and 138 of
Montgomery with a mask a lung, together 704 films with masks, 359 normal and 345 with tuberculosis.
"""

from __future__ import annotations

from collections import Counter

import pytest

from jobs.sources.layouts import Catalogue, describe, recognise

WITHOUT_MASK = {25, 65, 336, 502, 505}
WITHOUT_MASK |= {*range(36, 41), *range(181, 221), *range(341, 361), *range(481, 501)}
WITHOUT_MASK |= {*range(560, 566)}
SHENZHEN = {n: f"CHNCXR_{n:04}_{n > 326:d}" for n in range(1, 663)}
MONTGOMERY = {n: f"MCUCXR_{n:04}_{n > 80:d}" for n in range(1, 139)}
MASKED = [stem for n, stem in SHENZHEN.items() if n not in WITHOUT_MASK]
IN_TEST = [stem for n, stem in SHENZHEN.items() if n in WITHOUT_MASK]
SET = "Montgomery/MontgomerySet"
JUNK = ("Thumbs.db", ".DS_Store")


def kmader(china: str = "ChinaSet_AllFiles/ChinaSet_AllFiles") -> list[str]:
    """kmader/pulmonary-chest-xray-abnormalities."""
    folders = (f"{SET}/CXR_png", f"{SET}/ManualMask/leftMask", f"{SET}/ManualMask/rightMask")
    names = [f"{china}/CXR_png/{stem}.png" for stem in SHENZHEN.values()]
    names += [f"{folder}/{stem}.png" for folder in folders for stem in MONTGOMERY.values()]
    names += [f"{china}/ClinicalReadings/{stem}.txt" for stem in SHENZHEN.values()]
    names += [f"{china}/CXR_png/Thumbs.db", f"{SET}/CXR_png/Thumbs.db"]
    return names + [f"{folder}/{junk}" for folder in folders[1:] for junk in JUNK]


def yoctoman() -> list[str]:
    """yoctoman/shcxr-lung-mask."""
    return [f"mask/mask/{stem}_mask.png" for stem in MASKED]


def nikhilpandey(above: str = "data/") -> list[str]:
    """nikhilpandey360/chest-xray-masks-and-labels."""
    root = f"{above}Lung Segmentation"
    films = [*SHENZHEN.values(), *MONTGOMERY.values()]
    names = [f"{root}/CXR_png/{stem}.png" for stem in films]
    names += [f"{root}/masks/{stem}_mask.png" for stem in MASKED]
    names += [f"{root}/masks/{stem}.png" for stem in MONTGOMERY.values()]
    names += [f"{root}/test/{stem}.png" for stem in IN_TEST]
    return names + [f"{root}/ClinicalReadings/{stem}.txt" for stem in films]


def iamtapendu() -> list[str]:
    """iamtapendu/chest-x-ray-lungs-segmentation, whose films are the same with other names."""
    root = "Chest-X-Ray/Chest-X-Ray"
    pairs = [f"{root}/{kind}/{n}.png" for kind in ("image", "mask") for n in range(1000, 1704)]
    return ["MetaData.csv", *pairs]


def pairs(catalogue: Catalogue) -> Counter[str]:
    """Films with both lungs' masks, by source."""
    sides = ({"lungs"}, {"left", "right"})
    return Counter(film.source for film in catalogue.films if set(film.masks) in sides)


def labels(catalogue: Catalogue) -> Counter[tuple[str, str]]:
    return Counter((film.source, film.label) for film in catalogue.films)


def test_the_films_of_the_sets_are_704_with_masks() -> None:
    assert (len(MASKED), len(IN_TEST), len(MASKED) + len(MONTGOMERY)) == (566, 96, 704)


@pytest.mark.parametrize(
    "china", ["ChinaSet_AllFiles/ChinaSet_AllFiles", "ChinaSet_AllFiles"], ids=["double", "single"]
)
def test_montgomery_and_shenzhen_as_kmader_has_them(china: str) -> None:
    catalogue = recognise([kmader(china)])
    assert catalogue.layouts == {"shenzhen": 662, "montgomery": 138}
    assert pairs(catalogue) == {"montgomery": 138}
    assert labels(catalogue) == {
        ("shenzhen", "normal"): 326,
        ("shenzhen", "abnormal"): 336,
        ("montgomery", "normal"): 80,
        ("montgomery", "abnormal"): 58,
    }
    assert catalogue.ignored == {"system files": 6, "text and metadata": 662}
    assert (catalogue.copies, catalogue.masks_without_film, catalogue.one_lung) == ([], [], [])


def test_shenzhen_masks_as_yoctoman_has_them_find_kmaders_films() -> None:
    catalogue = recognise([kmader(), yoctoman()])
    assert pairs(catalogue) == {"shenzhen": 566, "montgomery": 138}
    assert Counter(film.label for film in catalogue.films if film.masks) == {
        "normal": 359,
        "abnormal": 345,
    }
    assert catalogue.without_mask == sorted(IN_TEST)
    assert catalogue.masks_without_film == []


def test_yoctomans_masks_alone_are_no_films() -> None:
    catalogue = recognise([yoctoman()])
    assert (catalogue.films, len(catalogue.masks_without_film)) == ([], 566)


@pytest.mark.parametrize("above", ["data/", ""])
def test_masks_and_labels_as_nikhilpandey_has_them(above: str) -> None:
    catalogue = recognise([nikhilpandey(above)])
    assert catalogue.layouts == {"masks-and-labels": 800}
    assert pairs(catalogue) == {"shenzhen": 566, "montgomery": 138}
    assert catalogue.without_mask == sorted(IN_TEST)
    assert len(catalogue.copies) == 96, "those in test/ are in CXR_png/ too"
    assert catalogue.ignored == {"text and metadata": 800}


def test_renamed_films_as_iamtapendu_has_them() -> None:
    catalogue = recognise([iamtapendu()])
    assert catalogue.layouts == {"plain": 704}
    assert pairs(catalogue) == {"custom": 704}
    assert catalogue.ignored == {"text and metadata": 1}


FOUR = {"a": kmader(), "b": yoctoman(), "c": nikhilpandey(), "d": iamtapendu()}


@pytest.mark.parametrize("in_one", [True, False], ids=["one prefix", "four sources"])
def test_all_four_together_are_each_film_once_and_everything_is_accounted_for(
    in_one: bool,
) -> None:
    mixed = [f"{folder}/{name}" for folder, names in FOUR.items() for name in names]
    catalogue = recognise([mixed] if in_one else list(FOUR.values()))
    assert len(catalogue.films) == 800 + 704
    assert pairs(catalogue) == {"shenzhen": 566, "montgomery": 138, "custom": 704}
    assert catalogue.without_mask == sorted(IN_TEST)
    assert catalogue.masks_without_film == []
    # Every film of c is in a; of its masks the Shenzhen ones are in b, and Montgomery's are merged.
    assert len(catalogue.copies) == 800 + 96 + 566
    assert catalogue.ignored == {
        "system files": 6,
        "text and metadata": 662 + 800 + 1,
        "second mask of a film": 138,
    }
    masks = sum(len(film.masks) for film in catalogue.films)
    accounted = len(catalogue.films) + masks + len(catalogue.copies)
    assert accounted + sum(catalogue.ignored.values()) == len(mixed)


def test_the_order_of_four_sources_changes_no_film() -> None:
    forward, backward = recognise(list(FOUR.values())), recognise(list(FOUR.values())[::-1])
    assert [film.id for film in forward.films] == [film.id for film in backward.films]
    assert describe(forward)[0].endswith("with a mask: 1408")
