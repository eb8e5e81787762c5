"""Black borders are cropped to the pixel, and no lung is cropped."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from jobs.imaging.borders import Box, find_opening
from jobs.imaging.decode import decode_film, decode_mask
from jobs.phantoms import source
from tests.support.films import draw_pair

RNG = np.random.default_rng(0)


def framed(film: NDArray[np.uint8], box: Box, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """A film of `shape` with `film` at `box`; the rest is black with a scanner's noise."""
    whole = RNG.integers(0, 9, shape).astype(np.uint8)
    whole[box.slices] = film
    return whole


@pytest.mark.parametrize(
    "box",
    [Box(0, 0, 160, 128), Box(9, 0, 169, 128), Box(0, 31, 160, 159), Box(40, 30, 200, 158)],
)
def test_the_opening_is_found_to_the_pixel(box: Box) -> None:
    shape = (max(box.bottom, 160) + 12 * (box.top > 9), box.right + 17 * (box.left > 0))
    assert find_opening(framed(draw_pair(1)[0], box, shape)) == box


def test_a_small_bright_marker_in_the_border_is_cropped() -> None:
    film = framed(draw_pair(2, 400, 300)[0], Box(60, 50, 460, 350), (500, 400))
    film[20:26, 10:16] = 255
    assert find_opening(film) == Box(60, 50, 460, 350)


@pytest.mark.parametrize("gray", [0, 1, 255])
def test_a_film_of_one_gray_is_not_cropped(gray: int) -> None:
    assert find_opening(np.full((90, 70), gray, np.uint8)) == Box(0, 0, 90, 70)


def test_borders_that_would_leave_less_than_half_are_not_cropped() -> None:
    film = framed(draw_pair(3, 60, 50)[0], Box(20, 30, 80, 80), (200, 200))
    assert find_opening(film) == Box(0, 0, 200, 200)


def test_an_underexposed_film_is_not_cropped() -> None:
    film = draw_pair(4)[0] // 8
    assert find_opening(film) == Box(0, 0, 160, 128)


def test_a_tilted_opening_is_kept_whole_with_black_corners() -> None:
    film = np.full((400, 300), 150, np.uint8)
    corners = np.array([[30, 25], [280, 45], [270, 380], [20, 360]])
    opening = np.zeros_like(film)
    cv2.fillPoly(opening, [corners], (1,))
    box = find_opening(film * opening)
    rows, columns = np.nonzero(opening)
    assert abs(box.top - rows.min()) <= 3 and abs(box.bottom - rows.max()) <= 3
    assert abs(box.left - columns.min()) <= 3 and abs(box.right - columns.max()) <= 3


@pytest.mark.slow
def test_no_visible_lung_is_cropped_from_a_phantom() -> None:
    """A collimator may cover lung, so that the true mask extends into the black border."""
    cropped_films = 0
    for number in range(1, 13):
        phantom = source.draw(5, number)
        cropped_lung = phantom.left | phantom.right
        box = find_opening(phantom.image)
        cropped_lung[box.slices] = False
        lit = phantom.image[cropped_lung] > 60
        cropped_films += box.shape != phantom.image.shape
        assert np.count_nonzero(lit) <= 0.0002 * phantom.image.size, number
    assert cropped_films >= 3


@pytest.mark.parametrize("kind", ["leftMask", "rightMask"])
def test_no_lung_is_cropped_from_a_real_film(shared_data: Path, kind: str) -> None:
    cropped_films = 0
    with zipfile.ZipFile(shared_data / "kermany-as-montgomery.zip") as archive:
        names = [name for name in archive.namelist() if re.search(r"CXR_png/\w+\.png$", name)]
        for name in names[::4]:
            film = decode_film(archive.read(name))
            lung = decode_mask(archive.read(name.replace("CXR_png", f"ManualMask/{kind}")))
            box = find_opening(film)
            cropped_films += box.shape != film.shape
            assert lung[box.slices].sum() == lung.sum(), name
    assert cropped_films >= 3
