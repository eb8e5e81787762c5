"""No two films have one id, whatever their names; ordinary names keep the ids of version 0.1.0."""

from __future__ import annotations

import hashlib
import random
import re
import unicodedata

import pytest

from jobs.sources.film_ids import film_id
from jobs.sources.layouts import Catalogue, recognise

SAFE = re.compile(r"[A-Za-z0-9_.-]{1,128}")
# Names that become one another by case, Unicode's forms, safe characters or the cut of long ones.
PARTS = [
    *(
        "A",
        "a",
        "É",
        "É",
        "é",
        "ß",
        "ss",
        "ſ",
        "İ",
        "ı",
        "K",
        "K",
        "_",
        " ",
        "  ",
        "+",
        "-",
        ".",
        "..",
    ),
    *("患者", "病人", "я", "\u202e", "\x1b", "?", "%2F", "a.", "a ", ".png", "x" * 251, "x" * 252),
]
FOLDERS = [
    "",
    "images/",
    "a/",
    "a/b/",
    "a_b/",
    "x/images/y/z/",
    "x/y/images/z/",
    "A/images/",
    "a /",
]
ENDINGS = [".png", ".PNG", ".jpg", ".tif"]


def digest(text: str, digits: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:digits]


def composed(name: str) -> str:
    """What makes a film in a layout: its folders and its stem, in Unicode's composed form."""
    return unicodedata.normalize("NFC", name).rpartition(".")[0]


def ids(catalogue: Catalogue) -> list[str]:
    return [film.id for film in catalogue.films]


def assert_apart(films: list[str]) -> None:
    assert len({film.lower() for film in films}) == len(films)
    assert all(SAFE.fullmatch(film) for film in films)


def adversarial(seed: int) -> list[str]:
    draw = random.Random(seed)
    names = set()
    for _ in range(60):
        stem = "".join(draw.choices(PARTS, k=draw.randint(1, 3)))[:251].lstrip(".") or "n"
        stem = unicodedata.normalize("NFC" if draw.random() < 0.5 else "NFD", stem)
        names.add(draw.choice(FOLDERS) + stem + draw.choice(ENDINGS))
    return sorted(names)


@pytest.mark.parametrize("seed", range(20))
def test_every_film_of_an_adversarial_set_has_an_id_of_its_own(seed: int) -> None:
    """Each round adds films whose names are the ids that the earlier ones got."""
    drawn = adversarial(seed)
    names = sorted({name if "images/" in name else "images/" + name for name in drawn})
    for _ in range(7):
        catalogue = recognise([names])
        # Files of one folder and stem are one film and its copies, which must be equal.
        assert len(catalogue.films) + len(catalogue.copies) == len(names)
        assert len(catalogue.films) == len({composed(name) for name in names})
        assert_apart(ids(catalogue))
        names = sorted({*names, *(f"images/{film}.png" for film in ids(catalogue)[:40])})


@pytest.mark.parametrize("seed", range(5))
def test_ids_do_not_depend_on_the_order_of_the_listing(seed: int) -> None:
    names = adversarial(seed)
    expected = recognise([names])
    random.Random(seed).shuffle(names)
    assert recognise([names]) == expected


def test_a_film_named_like_anothers_id_takes_it_from_nobody() -> None:
    first = ids(recognise([["A.png", "a.png"]]))
    assert (
        first
        == [f"A-{digest('0///A', 8)}", f"a-{digest('0///a', 8)}"]
        == ["A-c8360b40", "a-dcfe001b"]
    )
    names = ["A.png", "a.png"]
    # Each name is what the digest of the next length would make of A: none may win it back.
    names += [f"A-{digest('0///A', 8)}.png"]
    names += [f"A-{digest(chr(0).join(('0', '', '', 'A')), digits)}.png" for digits in (16, 32, 64)]
    films = ids(recognise([names]))
    assert len(films) == 6
    assert_apart(films)


def test_one_path_around_two_film_folders_is_two_films() -> None:
    films = ids(recognise([["x/images/y/z/s.png", "x/y/images/z/s.png"]]))
    assert len(films) == 2
    assert_apart(films)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["images/P-7.png", "images/v1.2.3.png"], ["P-7", "v1.2.3"]),
        (["images/a b.png"], ["a_b"]),
        (["one/images/7.png", "two/images/7.png"], ["one_7", "two_7"]),
        (
            ["images/a b.png", "images/a_b.png"],
            ["a_b-" + digest("0///a_b", 8), "a_b-" + digest("0///a b", 8)],
        ),
        (["images/" + "x" * 200 + ".png"], ["x" * 119 + "-" + digest("0///" + "x" * 200, 8)]),
        (["CXR_png/MCUCXR_0001_0.png", "mcucxr_0001_0.png"], ["MCUCXR_0001_0"]),
    ],
)
def test_ids_of_ordinary_sets_are_those_of_earlier_runs(
    names: list[str], expected: list[str]
) -> None:
    assert ids(recognise([names])) == sorted(expected)


@pytest.mark.parametrize("name", ["a.png", "monday/a.png", "ward 3/scan (1).jpg", "x.y/1-2_3.tif"])
def test_the_id_of_an_ordinary_film_of_an_inbox_is_that_of_earlier_runs(name: str) -> None:
    stem = re.sub(r"[/ ()]+", "_", name.rpartition(".")[0])
    assert film_id(name) == f"{stem}-{digest(name, 8)}"


@pytest.mark.parametrize("seed", range(5))
def test_every_film_of_an_inbox_has_an_id_of_its_own(seed: int) -> None:
    names = adversarial(seed)
    names += [f"{film_id(name)}.png" for name in names]
    films = [film_id(name) for name in names]
    assert_apart(films)


def test_many_films_named_in_another_script_have_ids_of_their_own() -> None:
    """With 8 digits these two of 120,000 had one id, and one mask."""
    names = ["影像/〇三一二〇一号.png", "影像/〇四九三三三号.png"]
    assert len({digest(name, 8) for name in names}) == 1
    assert_apart([film_id(name) for name in names])
