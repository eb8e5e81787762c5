"""Phantoms: the same films for the same seed, with the anatomy of a chest and exact masks."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from jobs.errors import ConfigError, NotFoundError
from jobs.imaging.decode import decode_film, decode_mask
from jobs.phantoms import anatomy, source
from jobs.phantoms.source import Phantom, PhantomSource, draw

FILMS = 8


@pytest.fixture(scope="module")
def films() -> list[Phantom]:
    return [draw(0, number) for number in range(1, FILMS + 1)]


@pytest.fixture
def drawn_numbers(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the films, in the order in which a fast stub draws them."""
    numbers: list[int] = []
    size = (4, 4)

    def draw_stub(seed: int, number: int) -> Phantom:
        numbers.append(number)
        image = np.full(size, number, np.uint8)
        return Phantom(image, np.eye(*size, dtype=bool), np.zeros(size, bool))

    monkeypatch.setattr(source, "draw", draw_stub)
    return numbers


def test_a_film_does_not_depend_on_order_thread_or_source() -> None:
    names = PhantomSource("films=3&seed=5").names()
    forwards = {name: PhantomSource("films=3&seed=5").read(name) for name in names}
    phantoms = PhantomSource("seed=5&films=3")
    with ThreadPoolExecutor(4) as pool:
        backwards = dict(zip(names[::-1], pool.map(phantoms.read, names[::-1]), strict=True))
    assert backwards == forwards


def test_more_films_change_no_film_and_another_seed_changes_every_film() -> None:
    few, many, other = (PhantomSource(q) for q in ("films=2", "films=5", "films=2&seed=1"))
    assert set(few.names()) < set(many.names())
    assert few.read(few.names()[0]) == many.read(few.names()[0])
    assert few.read(few.names()[0]) != other.read(other.names()[0])


def test_a_film_and_its_masks_have_one_size_of_800_to_2000_pixels(films: list[Phantom]) -> None:
    for film in films:
        assert film.image.dtype == np.uint8
        assert film.image.shape == film.left.shape == film.right.shape
        assert 800 <= min(film.image.shape) <= max(film.image.shape) <= 2000
    assert len({film.image.shape for film in films}) == FILMS
    assert any(film.image.shape[0] != film.image.shape[1] for film in films)


def test_the_masks_are_two_separate_components_without_holes(films: list[Phantom]) -> None:
    for film in films:
        assert not (film.left & film.right).any()
        for mask in (film.left, film.right):
            assert cv2.connectedComponents(mask.astype(np.uint8))[0] == 2  # background and lung
            assert cv2.connectedComponents((~mask).astype(np.uint8))[0] == 2  # no hole
        assert cv2.connectedComponents((film.left | film.right).astype(np.uint8))[0] == 3


def test_the_left_mask_is_the_viewers_left(films: list[Phantom]) -> None:
    for film in films:
        left, right = (np.nonzero(mask)[1].mean() for mask in (film.left, film.right))
        assert left < film.image.shape[1] / 2 < right


def test_lungs_have_the_area_that_they_have_in_real_films(films: list[Phantom]) -> None:
    shares = [float((film.left | film.right).mean()) for film in films]
    assert all(0.1 < share < 0.5 for share in shares)
    # In 60 real films: 0.22 to 0.43, mean 0.33.
    assert 0.25 < np.mean(shares) < 0.42


def test_lungs_are_darker_than_the_tissue_around_them(films: list[Phantom]) -> None:
    for film in films:
        lungs = (film.left | film.right).astype(np.uint8)
        reach = film.image.shape[1] // 12
        around = cv2.dilate(lungs, np.ones((reach, reach), np.uint8)) - lungs
        inner = film.image[lungs > 0].mean()
        assert inner < film.image[around > 0].mean() - 10


def test_the_spine_is_brighter_than_the_lungs_beside_it(films: list[Phantom]) -> None:
    for film in films:
        rows = np.nonzero(film.left.any(1) & film.right.any(1))[0]
        for row in np.linspace(rows[0], rows[-1], 9)[2:-2].astype(int):
            edge = np.nonzero(film.left[row])[0].max(), np.nonzero(film.right[row])[0].min()
            between = film.image[row, edge[0] : edge[1]].mean()
            beside = film.image[row][film.left[row] | film.right[row]].mean()
            assert between > beside


def test_a_film_uses_the_gray_scale_and_is_not_saturated(films: list[Phantom]) -> None:
    for film in films:
        low, high = np.percentile(film.image, [5, 95])
        assert high - low > 80
        assert (film.image == 255).mean() < 0.01


def test_a_film_has_noise_that_does_not_hide_it(films: list[Phantom]) -> None:
    for film in films:
        image = film.image.astype(np.float32)
        fine = (image - cv2.GaussianBlur(image, (0, 0), 1.5))[film.left]
        assert 0.5 < fine.std() < 10


def test_films_differ_in_shape_and_outline(films: list[Phantom]) -> None:
    small = [
        cv2.resize((film.left | film.right).astype(np.uint8), (64, 64), interpolation=0)
        for film in films
    ]
    for number, one in enumerate(small):
        assert all((one != other).mean() > 0.01 for other in small[:number])


def test_disease_is_visible_in_the_films_named_for_it_and_does_not_change_the_masks(
    films: list[Phantom], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(anatomy, "disease", lambda *_: np.float32(0))
    names = [name for name in PhantomSource(f"films={FILMS}").names() if "/CXR_png/" in name]
    assert {name[-5] for name in names} == {"0", "1"}
    for number, (film, name) in enumerate(zip(films, names, strict=True), start=1):
        healthy = draw(0, number)
        changed = np.abs(healthy.image.astype(int) - film.image) > 8
        lungs = film.left | film.right
        assert np.array_equal(healthy.left | healthy.right, lungs)
        assert changed.any() == (name[-5] == "1")
        assert changed[lungs].mean() >= changed[~lungs].mean()


def test_disease_replaces_some_of_the_air_and_never_all() -> None:
    patient = anatomy.Patient.sample(source.generator(0, 1))
    canvas = source.Canvas((0.0, patient.height / 2), (40.0, 32.0), 200)
    lungs = np.maximum(*(lung.field(canvas) for lung in patient.lungs)) > 0
    for number in range(8):
        opacity = anatomy.disease(canvas, patient, source.generator(1, number))
        assert 0 <= opacity.min() <= opacity.max() < 1
        assert opacity[lungs].max() > 0.1


def test_the_first_film_is_the_one_of_recipe_1() -> None:
    """Another film needs another recipe. The tolerance is for the arithmetic of other CPUs."""
    film = draw(0, 1)
    assert source.RECIPE == "1"
    assert film.image.shape == (1297, 1937)
    assert film.left.mean() == pytest.approx(0.17429, abs=1e-4)
    assert film.right.mean() == pytest.approx(0.17668, abs=1e-4)
    small = cv2.resize(film.image, (4, 4), interpolation=cv2.INTER_AREA).astype(int)
    expected = [[98, 116, 129, 86], [68, 90, 130, 89], [61, 107, 161, 83], [86, 177, 169, 103]]
    assert np.abs(small - expected).max() <= 1


def test_names_are_those_of_montgomery() -> None:
    names = PhantomSource("films=12&seed=0").names()
    assert names == sorted(names)
    assert len(names) == 36
    films = [name for name in names if "/CXR_png/" in name]
    assert films[0].startswith("Montgomery/MontgomerySet/CXR_png/PHANTOM_0001_")
    assert {name[-5] for name in films} == {"0", "1"}
    for side in ("leftMask", "rightMask"):
        folder = f"/ManualMask/{side}/"
        assert {name.replace("/CXR_png/", folder) for name in films} < set(names)


def test_the_files_decode_to_the_drawn_film_and_masks() -> None:
    phantoms, film = PhantomSource("films=1&seed=9"), draw(9, 1)
    image, left, right = (phantoms.read(name) for name in phantoms.names())
    assert np.array_equal(decode_film(image), film.image)
    assert np.array_equal(decode_mask(left), film.left)
    assert np.array_equal(decode_mask(right), film.right)


def test_three_reads_draw_a_film_once(drawn_numbers: list[int]) -> None:
    phantoms = PhantomSource("films=20")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(phantoms.read, phantoms.names()))
    assert sorted(drawn_numbers) == list(range(1, 21))


def test_the_oldest_films_are_dropped_from_the_cache(drawn_numbers: list[int]) -> None:
    phantoms = PhantomSource(f"films={source.CACHED_FILMS + 1}")
    names = [name for name in phantoms.names() if "CXR" in name]
    for name in [*names, names[0]]:
        phantoms.read(name)
    assert drawn_numbers == [*range(1, source.CACHED_FILMS + 2), 1]
    phantoms.close()
    phantoms.read(names[-1])
    assert drawn_numbers[-1] == source.CACHED_FILMS + 1


def test_a_failure_is_raised_in_the_threads_that_wait_too(monkeypatch: pytest.MonkeyPatch) -> None:
    started, may_fail = threading.Event(), threading.Event()

    def fail(seed: int, number: int) -> Phantom:
        started.set()
        may_fail.wait(10)
        raise MemoryError("no memory")

    monkeypatch.setattr(source, "draw", fail)
    phantoms = PhantomSource("films=1")
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(phantoms.read, phantoms.names()[0])
        assert started.wait(10)
        second = pool.submit(phantoms.read, phantoms.names()[1])
        may_fail.set()
        assert isinstance(first.exception(10), MemoryError)
        assert isinstance(second.exception(10), MemoryError)


@pytest.mark.parametrize(
    "query",
    [
        "films=0",
        "films=100001",
        "films=-1",
        "films=ten",
        "films=",
        "seed=-1",
        "seed=1.5",
        "size=512",
        "films=5&films=6",
        "films",
        "seed=²",
    ],
)
def test_a_query_of_another_form_is_refused_with_the_accepted_form(query: str) -> None:
    with pytest.raises(ConfigError, match=r"films from 1 to 100000 and seed 0 or more") as caught:
        PhantomSource(query)
    assert query in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_identity_has_the_recipe_and_both_numbers_even_by_default() -> None:
    expected = {"generator": "phantoms", "recipe": "1", "films": "48", "seed": "0"}
    assert PhantomSource("").identity() == expected
    assert PhantomSource("seed=00&films=048").identity() == expected


def test_a_name_without_a_phantom_is_not_found() -> None:
    with pytest.raises(NotFoundError, match="PHANTOM_0002"):
        PhantomSource("films=1").read("Montgomery/MontgomerySet/CXR_png/PHANTOM_0002_0.png")
