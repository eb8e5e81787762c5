"""A film's place in the square, there and back, for films of any size and aspect."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from jobs.errors import BadDataError
from jobs.imaging.borders import Box
from jobs.imaging.geometry import FITS, Placement, Placing, letterbox

RNG = np.random.default_rng(0)
SIZE = 256

# Any size and aspect up to 3.2 to 1, and borders of up to a fifth on each side, or none.
FILMS = []
for _ in range(12):
    longer, aspect = RNG.integers(300, 1500), RNG.uniform(1, 3.2)
    sides = (int(longer), int(longer / aspect))
    margins = RNG.uniform(0, 0.2, 4) * RNG.integers(0, 2, 4)
    FILMS.append((sides if RNG.random() < 0.5 else sides[::-1], margins))
FILMS += [((SIZE, 800), np.zeros(4)), ((800, 250), np.zeros(4)), ((257, 256), np.zeros(4))]
WAYS = [(fit, crop) for fit in FITS for crop in (False, True)]


def draw(shape: tuple[int, int], margins: NDArray[np.float64]) -> tuple[NDArray[np.uint8], Box]:
    """A bright film within black borders, and where it is bright."""
    height, width = shape
    top, left = (round(side * part) for side, part in zip(shape, margins[:2], strict=True))
    bottom = height - round(height * margins[2])
    right = width - round(width * margins[3])
    film = np.zeros(shape, np.uint8)
    film[top:bottom, left:right] = 120 + RNG.integers(0, 80, (bottom - top, right - left))
    return film, Box(top, left, bottom, right)


def disc(shape: tuple[int, int], box: Box, radius: float) -> NDArray[np.bool_]:
    """An ellipse amid the box, its half axes `radius` of the box's sides."""
    rows, columns = np.mgrid[: shape[0], : shape[1]] + 0.5
    y = (rows - (box.top + box.bottom) / 2) / (radius * box.shape[0])
    x = (columns - (box.left + box.right) / 2) / (radius * box.shape[1])
    return np.asarray(y * y + x * x < 1)


def center(mask: NDArray[Any]) -> NDArray[np.float64]:
    """The center of mass, in pixels from the top left corner."""
    rows, columns = np.mgrid[: mask.shape[0], : mask.shape[1]] + 0.5
    return np.array([(rows * mask).sum(), (columns * mask).sum()]) / mask.sum()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("film", range(len(FILMS)))
def test_a_mask_put_into_the_square_and_back_is_itself(film: int, way: tuple[str, bool]) -> None:
    image, opening = draw(*FILMS[film])
    placement = Placing(SIZE, fit=way[0], crop_borders=way[1]).place(image)
    mask = disc(image.shape, opening, 0.4)
    square = placement.mask_to_square(mask)
    back = placement.to_film(square.astype(np.float32)) >= 0.5
    assert square.shape == (SIZE, SIZE)
    assert back.shape == image.shape
    assert 2 * (back & mask).sum() / (back.sum() + mask.sum()) >= 0.99
    assert np.abs(center(back) - center(mask)).max() <= 0.5


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("film", range(len(FILMS)))
def test_film_and_mask_lie_alike_in_the_square(film: int, way: tuple[str, bool]) -> None:
    image, opening = draw(*FILMS[film])
    placement = Placing(SIZE, fit=way[0], crop_borders=way[1]).place(image)
    mask = disc(image.shape, opening, 0.3)
    seen = placement.film_to_square(np.where(mask, image // 8, image)) < 60
    seen &= placement.mask_to_square(disc(image.shape, opening, 0.45))
    assert np.abs(center(seen) - center(placement.mask_to_square(mask))).max() <= 0.5


@pytest.mark.parametrize("film", range(len(FILMS)))
def test_cropping_keeps_just_what_the_borders_leave_open(film: int) -> None:
    image, opening = draw(*FILMS[film])
    assert Placing(SIZE, crop_borders=True).place(image).crop == opening
    assert Placing(SIZE).place(image).crop == Box(0, 0, *image.shape)


def test_a_film_without_borders_is_placed_alike_with_cropping_and_without() -> None:
    image, _ = draw((700, 500), np.zeros(4))
    for fit in FITS:
        cropped = Placing(SIZE, fit=fit, crop_borders=True).place(image)
        assert cropped == Placing(SIZE, fit=fit).place(image)


def test_what_was_cropped_has_no_probability() -> None:
    image, opening = draw((600, 500), np.array([0.1, 0.05, 0.2, 0]))
    placement = Placing(SIZE, crop_borders=True).place(image)
    back = placement.to_film(np.ones((SIZE, SIZE), np.float32))
    expected = np.zeros(image.shape, np.float32)
    expected[opening.slices] = 1
    assert np.array_equal(back, expected)


@pytest.mark.parametrize("shape", [(4020, 4892), (3000, 3000), (1000, 313), (313, 1000), (7, 5)])
def test_a_letterbox_keeps_the_aspect_to_the_nearest_pixel_and_is_centered(
    shape: tuple[int, int],
) -> None:
    box = letterbox(*shape, SIZE)
    scale = SIZE / max(shape)
    assert max(box.shape) == SIZE
    assert all(abs(n - side * scale) <= 0.5 for n, side in zip(box.shape, shape, strict=True))
    assert abs(box.top - (SIZE - box.bottom)) <= 1 and abs(box.left - (SIZE - box.right)) <= 1


def test_the_bars_of_a_letterbox_are_black_and_hold_no_lung() -> None:
    image = np.full((300, 900), 200, np.uint8)
    placement = Placing(SIZE, fit="letterbox").place(image)
    square = placement.film_to_square(image)
    lung = placement.mask_to_square(np.ones(image.shape, bool))
    assert (square[placement.box.slices] == 200).all() and lung[placement.box.slices].all()
    assert square.sum() == 200 * lung.sum() == 200 * placement.box.shape[0] * SIZE


def test_stretching_gives_every_film_the_whole_square() -> None:
    for shape, margins in FILMS:
        assert Placing(SIZE).place(draw(shape, margins)[0]).box == Box(0, 0, SIZE, SIZE)


@pytest.mark.parametrize("way", WAYS)
def test_a_film_that_was_placed_before_stays_where_it_is(way: tuple[str, bool]) -> None:
    image, _ = draw((500, 900), np.array([0.1, 0, 0, 0.1]))
    square = Placing(SIZE, fit=way[0], crop_borders=way[1]).place(image).film_to_square(image)
    again = Placing(SIZE).place(square)
    assert np.array_equal(again.film_to_square(square), square)
    assert again.crop == again.box == Box(0, 0, SIZE, SIZE)


@pytest.mark.parametrize("fit", FITS)
def test_a_raw_film_of_the_squares_own_size_is_cropped_like_any_other(fit: str) -> None:
    image, opening = draw((SIZE, SIZE), np.array([0.1, 0.05, 0.2, 0]))
    assert Placing(SIZE, fit, crop_borders=True).place(image).crop == opening
    assert Placing(SIZE, fit).place(image).crop == Box(0, 0, SIZE, SIZE)


def test_a_mask_of_another_size_than_its_film_goes_to_the_same_place() -> None:
    image, opening = draw((1000, 800), np.array([0.1, 0.05, 0.2, 0]))
    placement = Placing(SIZE, fit="letterbox", crop_borders=True).place(image)
    own = placement.mask_to_square(disc((1000, 800), opening, 0.4))
    half = Box(*(side // 2 for side in (opening.top, opening.left, opening.bottom, opening.right)))
    other = placement.mask_to_square(disc((500, 400), half, 0.4))
    assert 2 * (own & other).sum() / (own.sum() + other.sum()) >= 0.99


def test_a_row_keeps_the_placement() -> None:
    image, _ = draw((1000, 700), np.array([0.1, 0.05, 0.2, 0]))
    placement = Placing(SIZE, fit="letterbox", crop_borders=True).place(image)
    numbers = placement.numbers()
    assert (numbers["height"], numbers["width"]) == (1000, 700)
    assert Placement.of(numbers, SIZE) == placement


GOOD = {"height": 40, "width": 30, "crop": [0, 0, 40, 30], "box": [0, 0, SIZE, SIZE]}


@pytest.mark.parametrize(
    "wrong",
    [
        {"height": 10**5, "width": 10**5, "crop": [0, 0, 10**5, 10**5]},
        {"crop": [0, 0, 41, 30]},
        {"crop": [10, 0, 10, 30]},
        {"crop": [-1, 0, 10, 30]},
        {"box": [0, 0, SIZE, SIZE + 1]},
        {"height": 0, "crop": [0, 0, 0, 30]},
    ],
)
def test_a_row_that_places_a_film_where_none_fits_is_bad_data(wrong: dict[str, Any]) -> None:
    assert Placement.of(GOOD, SIZE).numbers() == GOOD
    with pytest.raises(BadDataError, match="which preprocess does not: run it again"):
        Placement.of(GOOD | wrong, SIZE)


def test_a_placement_at_a_size_that_no_film_has_is_bad_data() -> None:
    with pytest.raises(BadDataError, match="would have 20000 x 10000 pixels"):
        Placement.of(GOOD, SIZE).at(10_000, 20_000)
