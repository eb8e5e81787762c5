"""Which value of a deep film is white, with markers burned in and without."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from jobs.imaging.decode import decode_film
from jobs.imaging.full_scale import BIT_DEPTHS, full_scale, to_eight_bits
from tests.support.image_files import GRAY_PNG, RGB_PNG, png, tiff

HEIGHT, WIDTH = 120, 100
MARKER = np.zeros((HEIGHT, WIDTH), bool)
MARKER[4:12, 5:20] = True  # 1 % of the film


def film_of(bits: int, low: float = 0.0, high: float = 1.0) -> NDArray[np.uint16]:
    """A smooth film with noise that uses `low` to `high` of its depth."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    smooth = (2 + np.sin(y / 17) + np.cos(x / 13)) / 4
    noisy = np.clip(smooth + np.random.default_rng(bits).normal(0, 0.02, smooth.shape), 0, 1)
    return np.asarray((low + noisy * (high - low)) * (2**bits - 1)).round().astype(np.uint16)


def scaled(film: NDArray[np.uint16], bits: int) -> NDArray[np.float64]:
    return np.asarray(np.round(film * (255 / (2**bits - 1))))


@pytest.mark.parametrize(
    ("bits", "white"),
    [
        *((10, 2047), (10, 1500), (10, 4095), (10, 16383), (10, 65535)),
        *((12, 8191), (12, 5500), (12, 16383), (12, 65535), (12, 40_000)),
        *((14, 32767), (14, 32768), (14, 21_000), (14, 65535)),
    ],
)
@pytest.mark.parametrize("part", ["marker", "one pixel", "padding"])
def test_a_marker_a_hot_pixel_and_a_padding_leave_the_film_as_it_is(
    bits: int, white: int, part: str
) -> None:
    film = film_of(bits)
    burned = {"marker": MARKER, "one pixel": np.zeros_like(MARKER), "padding": ~MARKER}[part].copy()
    if part == "one pixel":
        burned[7, 9] = True
    if part == "padding":
        burned[:] = True
        burned[20:100, 20:80] = False  # three fifths of the film
    marked = np.where(burned, np.uint16(white), film)
    decoded = decode_film(png(marked, GRAY_PNG))
    assert np.array_equal(decoded[~burned], scaled(film, bits)[~burned])
    assert (decoded[burned] == 255).all()


def test_soft_edges_of_letters_are_part_of_the_marker() -> None:
    film = film_of(12)
    film[4:12, 5:20] = 65535
    edge = np.random.default_rng(0).integers(4096, 65535, 8)
    film[4:12, 20] = edge
    decoded = decode_film(png(film, GRAY_PNG))
    assert np.array_equal(decoded[20:], scaled(film_of(12), 12)[20:])


@pytest.mark.parametrize(("bits", "white"), [(10, 1024), (12, 4096), (12, 4200), (14, 16384)])
def test_a_marker_close_above_the_films_values_is_white(bits: int, white: int) -> None:
    film = film_of(bits)
    decoded = decode_film(png(np.where(MARKER, np.uint16(white), film), GRAY_PNG))
    assert np.array_equal(decoded[~MARKER], scaled(film, bits)[~MARKER])
    assert (decoded[MARKER] == 255).all()


@pytest.mark.parametrize(("bits", "white"), [(12, 8191), (14, 32767)])
def test_soft_edges_below_a_marker_of_one_more_bit_are_part_of_it(bits: int, white: int) -> None:
    film = np.tile(film_of(bits), (4, 4))
    letter = np.zeros(film.shape, np.float32)
    letter[8:24, 10:50] = 1
    softened = cv2.GaussianBlur(letter, (0, 0), 0.6)
    marked = np.round(film + softened * (float(white) - film)).astype(np.uint16)
    decoded = decode_film(png(marked, GRAY_PNG))
    assert np.array_equal(decoded[softened == 0], scaled(film, bits)[softened == 0])


def test_a_marker_in_deep_color_and_in_a_film_whose_zero_is_white() -> None:
    film = film_of(12)
    marked = np.where(MARKER, np.uint16(65535), film)
    colored = decode_film(png(np.dstack([marked] * 3), RGB_PNG))
    assert np.array_equal(colored[~MARKER], scaled(film, 12)[~MARKER])
    inverted = decode_film(tiff(marked, 0))
    assert np.array_equal(inverted[~MARKER], scaled(4095 - film, 12)[~MARKER])
    assert (inverted[MARKER] == 0).all()


def test_padding_with_zeros_does_not_count_as_the_film() -> None:
    film = film_of(12)
    film[:, :70] = 0
    film[MARKER] = 65535
    decoded = decode_film(png(film, GRAY_PNG))
    assert np.array_equal(decoded[:, 70:], scaled(film, 12)[:, 70:])


def depth_of(film: NDArray[np.uint16]) -> int:
    """The smallest depth that holds the maximum: the rule without markers."""
    return next(bits for bits in BIT_DEPTHS if int(film.max()) < 2**bits)


# From 1024 to 16383, ever fewer.
TAIL = 1024 * 15.99 ** np.random.default_rng(1).random((HEIGHT, WIDTH))
RAMP = np.arange(2**16, dtype=np.uint16).reshape(256, 256)
UNMARKED = {
    **{f"{bits} bits": film_of(bits) for bits in (10, 12, 14, 16)},
    "dark": film_of(16, 0.0, 0.2),
    "bright": film_of(16, 0.6, 1.0),
    "a little over ten bits": film_of(12, 0.0, 0.26),
    "one pixel a little over ten bits": np.where(RAMP == 9, np.uint16(1100), RAMP % 1024),
    "every value": RAMP,
    "saturated air": np.minimum(film_of(16, 0.0, 1.6), 65535),
    "saturated air, twelve bits": np.where(film_of(12) > 3000, np.uint16(4095), film_of(12)),
    "two values": np.where(MARKER, np.uint16(65535), np.uint16(200)),
    "four grays": (RAMP % 4 * 5000).astype(np.uint16),
    "eight bits times 257": (RAMP % 256 * 257).astype(np.uint16),
    "bright metal, sixteen bits": np.where(MARKER, np.uint16(65535), film_of(16, 0, 0.5)),
    "a continuous bright tail": np.where(MARKER, TAIL, film_of(10)),
}


@pytest.mark.parametrize("name", UNMARKED)
def test_a_film_without_markers_is_scaled_from_the_depth_of_its_maximum(name: str) -> None:
    film = UNMARKED[name].astype(np.uint16)
    assert full_scale(film) == 2 ** depth_of(film) - 1


def test_values_over_full_scale_are_white() -> None:
    marked = np.where(MARKER, np.uint16(65535), film_of(12))
    table = to_eight_bits(marked)
    assert table[0] == 0
    assert (table[4095:] == 255).all()


def test_samples_in_three_channels_have_one_full_scale() -> None:
    marked = np.where(MARKER, np.uint16(65535), film_of(12))
    assert full_scale(np.dstack([marked] * 3)) == full_scale(marked) == 4095
