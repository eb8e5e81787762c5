"""The public sets by the names that Kaggle serves, each set alone and all sets in one prefix.

Counts are those of the sets' pages: 662 films of Shenzhen, of which 566 have a mask, and 138 films
of Montgomery with a mask for each lung; together 704 films with masks, of which 359 are normal and
345 show tuberculosis.
"""

from __future__ import annotations

from collections import Counter

import pytest

from jobs.sources.catalogue import Catalogue, describe
from jobs.sources.layouts import recognise

# Numbers of the Shenzhen films without a mask.
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
    """iamtapendu/chest-x-ray-lungs-segmentation: the same films under other names."""
    root = "Chest-X-Ray/Chest-X-Ray"
    pairs = [f"{root}/{kind}/{n}.png" for kind in ("image", "mask") for n in range(1000, 1704)]
    return ["MetaData.csv", *pairs]


def pairs(catalogue: Catalogue) -> Counter[str]:
    """Films with both lungs' masks, by source."""
    sides = ({"lungs"}, {"left", "right"})
    return Counter(film.source for film in catalogue.films if set(film.masks) in sides)


def labels(catalogue: Catalogue) -> Counter[tuple[str, str]]:
    return Counter((film.source, film.label) for film in catalogue.films)


def test_the_sets_have_704_films_with_masks() -> None:
    assert (len(MASKED), len(IN_TEST), len(MASKED) + len(MONTGOMERY)) == (566, 96, 704)


@pytest.mark.parametrize(
    "china", ["ChinaSet_AllFiles/ChinaSet_AllFiles", "ChinaSet_AllFiles"], ids=["double", "single"]
)
def test_montgomery_and_shenzhen_in_kmaders_dataset_are_recognised(china: str) -> None:
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


def test_shenzhen_masks_in_yoctomans_dataset_are_paired_with_kmaders_films() -> None:
    catalogue = recognise([kmader(), yoctoman()])
    assert pairs(catalogue) == {"shenzhen": 566, "montgomery": 138}
    assert Counter(film.label for film in catalogue.films if film.masks) == {
        "normal": 359,
        "abnormal": 345,
    }
    assert catalogue.without_mask == sorted(IN_TEST)
    assert catalogue.masks_without_film == []


def test_yoctomans_masks_alone_are_not_films() -> None:
    catalogue = recognise([yoctoman()])
    assert (catalogue.films, len(catalogue.masks_without_film)) == ([], 566)


@pytest.mark.parametrize("above", ["data/", ""])
def test_masks_and_labels_in_nikhilpandeys_dataset_are_recognised(above: str) -> None:
    catalogue = recognise([nikhilpandey(above)])
    assert catalogue.layouts == {"masks-and-labels": 800}
    assert pairs(catalogue) == {"shenzhen": 566, "montgomery": 138}
    assert catalogue.without_mask == sorted(IN_TEST)
    assert len(catalogue.copies) == 96, "the films in test/ are in CXR_png/ too"
    assert catalogue.ignored == {"text and metadata": 800}


def test_renamed_films_in_iamtapendus_dataset_are_recognised() -> None:
    catalogue = recognise([iamtapendu()])
    assert catalogue.layouts == {"plain": 704}
    assert pairs(catalogue) == {"custom": 704}
    assert catalogue.ignored == {"text and metadata": 1}


FOUR = {"a": kmader(), "b": yoctoman(), "c": nikhilpandey(), "d": iamtapendu()}


@pytest.mark.parametrize("in_one", [True, False], ids=["one prefix", "four sources"])
def test_all_four_sets_together_have_each_film_once_and_every_name_is_in_the_catalogue(
    in_one: bool,
) -> None:
    mixed = [f"{folder}/{name}" for folder, names in FOUR.items() for name in names]
    catalogue = recognise([mixed] if in_one else list(FOUR.values()))
    assert len(catalogue.films) == 800 + 704
    assert pairs(catalogue) == {"shenzhen": 566, "montgomery": 138, "custom": 704}
    assert catalogue.without_mask == sorted(IN_TEST)
    assert catalogue.masks_without_film == []
    # All films of c are copies of films in a; its Shenzhen masks are copies of masks in b. Its
    # Montgomery masks cover both lungs and are second masks.
    assert len(catalogue.copies) == 800 + 96 + 566
    assert catalogue.ignored == {
        "system files": 6,
        "text and metadata": 662 + 800 + 1,
        "second mask of a film": 138,
    }
    masks = sum(len(film.masks) for film in catalogue.films)
    in_use = len(catalogue.films) + masks + len(catalogue.copies)
    assert in_use + sum(catalogue.ignored.values()) == len(mixed)


def test_the_order_of_the_sources_does_not_change_the_films() -> None:
    forward, backward = recognise(list(FOUR.values())), recognise(list(FOUR.values())[::-1])
    assert [film.id for film in forward.films] == [film.id for film in backward.films]
    assert describe(forward)[0].endswith("with a mask: 1408")
