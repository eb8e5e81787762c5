"""Resampling against areas summed exactly and against linear interpolation by hand."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from jobs.imaging import geometry
from jobs.imaging.area import area_sums
from jobs.imaging.geometry import (
    resize,
    resize_film,
    resize_mask,
    same_aspect,
)

RNG = np.random.default_rng(0)


def area_1d(values: NDArray[Any], size: int) -> NDArray[np.float64]:
    """The mean of each column over `size` equal spans: the prefix sum read at their edges."""
    length = len(values)
    sums = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0, dtype=float)])
    edges = np.arange(size + 1) * length / size
    columns = [np.interp(edges, np.arange(length + 1), column) for column in sums.T]
    return np.diff(np.array(columns).T, axis=0) * size / length


def linear_1d(values: NDArray[Any], size: int) -> NDArray[np.float64]:
    """Each column's values between the centers of its pixels, held beyond the outer centers."""
    length = len(values)
    centers = (np.arange(size) + 0.5) * length / size - 0.5
    columns = [np.interp(centers, np.arange(length), column) for column in values.T]
    return np.array(columns).T


def resampled(values: NDArray[Any], height: int, width: int) -> NDArray[np.float64]:
    rows = (area_1d if height <= values.shape[0] else linear_1d)(values, height)
    return (area_1d if width <= values.shape[1] else linear_1d)(rows.T, width).T


def overlaps(length: int, size: int) -> NDArray[np.float64]:
    """How much of each old pixel lies in each new one, in units of 1 / size: (size, length)."""
    new, old = np.arange(size)[:, np.newaxis] * length, np.arange(length) * size
    shared = np.minimum(new + length, old + size) - np.maximum(new, old)
    return np.maximum(shared, 0).astype(np.float64)


SHAPES = [
    ((402, 489), 51),
    ((512, 512), 64),
    ((640, 480), 256),
    ((100, 97), 96),
    ((64, 64), 64),
    ((1117, 1180), 512),
    ((60, 800), 96),
    ((800, 60), 96),
    ((64, 700), 64),
    ((31, 45), 128),
    ((1, 1), 32),
]


@pytest.mark.parametrize(("shape", "size"), SHAPES)
def test_a_film_is_resampled_by_area_where_it_shrinks_and_linearly_where_it_grows(
    shape: tuple[int, int], size: int
) -> None:
    film = RNG.integers(0, 256, shape).astype(np.uint8)
    resized = resize_film(film, size, size)
    error = np.abs(resized - resampled(film, size, size))
    assert resized.dtype == np.uint8
    assert resized.shape == (size, size)
    assert error.mean() <= 0.5
    assert error.max() <= 2


@pytest.mark.parametrize(("shape", "size"), SHAPES)
def test_area_sums_are_exact(shape: tuple[int, int], size: int) -> None:
    image = RNG.integers(0, 256, shape).astype(np.uint8)
    # Whole numbers below 2^53, so exact in float64, whose product is the fast one.
    rows, columns = overlaps(shape[0], size), overlaps(shape[1], size)
    assert np.array_equal(area_sums(image, size, size), rows @ image.astype(float) @ columns.T)


def test_a_film_that_shrinks_is_rounded_once() -> None:
    film = RNG.integers(0, 256, (2010, 2446)).astype(np.uint8)
    error = np.abs(resize_film(film, 512, 512) - resampled(film, 512, 512))
    assert error.max() <= 0.5 + 1e-9


@pytest.mark.parametrize("shape", [(9_000_000, 1), (1, 9_000_000)])
def test_the_sums_of_the_longest_film_do_not_overflow(shape: tuple[int, int]) -> None:
    white = np.full(shape, 255, np.uint8)
    assert (resize_film(white, 32, 32) == 255).all()


def test_the_mean_of_a_film_survives_shrinking() -> None:
    film = RNG.integers(0, 256, (1000, 900)).astype(np.uint8)
    assert resize_film(film, 96, 96).mean() == pytest.approx(film.mean(), abs=0.1)


def test_a_film_is_not_shifted() -> None:
    noise = RNG.integers(0, 256, (301, 407)).astype(np.uint8)
    film = np.asarray(cv2.GaussianBlur(noise, (0, 0), 9), dtype=np.uint8)
    for size in (128, 352, 512):
        there = resize_film(film, size, size)
        back = resize_film(np.ascontiguousarray(film[::-1, ::-1]), size, size)[::-1, ::-1]
        assert np.abs(there.astype(int) - back).max() <= 1


def test_colors_are_resized_each_by_itself() -> None:
    image = RNG.integers(0, 256, (50, 70, 3)).astype(np.uint8)
    resized = resize(image, 30, 90)
    assert resized.shape == (30, 90, 3)
    for channel in range(3):
        alone = resize(np.ascontiguousarray(image[:, :, channel]), 30, 90)
        assert np.array_equal(resized[:, :, channel], alone)


@pytest.mark.parametrize(("shape", "size"), SHAPES)
@pytest.mark.parametrize("density", [0.5, 0.5001])
def test_a_mask_is_lung_where_lung_covers_half_of_the_area_exactly(
    shape: tuple[int, int], size: int, density: float
) -> None:
    height, width = shape
    mask = RNG.random(shape) < density
    # Whole numbers below 2^53, so exact in float64, whose product is the fast one.
    areas = overlaps(height, size) @ mask.astype(np.float64) @ overlaps(width, size).T
    resized = resize_mask(mask, size, size)
    assert resized.dtype == np.bool_
    assert np.array_equal(resized, 2 * areas >= height * width)


def test_a_pixel_covered_by_just_half_is_lung_and_by_a_hair_less_is_not() -> None:
    half = np.zeros((600, 600), bool)
    half[:, ::2] = True
    assert resize_mask(half, 3, 3).all()
    half[0, 0] = False
    assert not resize_mask(half, 3, 3)[0, 0]
    assert resize_mask(half, 3, 3).sum() == 8


def test_empty_and_full_masks_stay_so() -> None:
    for value in (False, True):
        assert (resize_mask(np.full((333, 201), value), 64, 64) == value).all()


def test_a_mask_of_the_target_size_is_unchanged() -> None:
    mask = RNG.random((64, 64)) < 0.3
    assert np.array_equal(resize_mask(mask, 64, 64), mask)


@pytest.mark.parametrize("shape", [(256, 300), (97, 64), (40, 50), (64, 64), (30, 200), (200, 30)])
def test_probabilities_come_back_at_the_films_own_size(shape: tuple[int, int]) -> None:
    probabilities = RNG.random((64, 64), dtype=np.float32)
    restored = resize(probabilities, *shape)
    assert restored.dtype == np.float32
    assert restored.shape == shape
    assert np.abs(restored - resampled(probabilities, *shape)).max() < 1e-5
    assert 0 <= restored.min() <= restored.max() <= 1


def test_a_mask_shrunk_and_restored_keeps_its_place() -> None:
    rows, columns = np.mgrid[:1200, :1000]
    lung = (rows - 500) ** 2 / 400**2 + (columns - 450) ** 2 / 250**2 < 1
    small = resize_mask(lung, 256, 256).astype(np.float32)
    restored = resize(small, 1200, 1000) >= 0.5
    dice = 2 * (restored & lung).sum() / (restored.sum() + lung.sum())
    assert dice > 0.995
    for axis in (0, 1):
        center = np.argwhere(lung)[:, axis].mean()
        assert np.argwhere(restored)[:, axis].mean() == pytest.approx(center, abs=0.2)


@pytest.mark.parametrize(
    ("shape", "other", "same"),
    [
        ((4020, 4892), (4020, 4892), True),
        ((4020, 4892), (512, 623), True),
        ((4020, 4892), (4892, 4020), False),
        ((1000, 1000), (1000, 1010), True),
        ((1010, 1000), (1000, 1000), True),
        ((1000, 1000), (1000, 1011), False),
        ((1011, 1000), (1000, 1000), False),
    ],
)
def test_two_shapes_have_one_aspect_within_a_hundredth(
    shape: tuple[int, int], other: tuple[int, int], same: bool
) -> None:
    assert same_aspect(shape, other) is same


def test_opencv_brings_no_threads_of_its_own() -> None:
    assert cv2.getNumThreads() == 1


@pytest.mark.parametrize("size", [(20, 15), (40, 30), (57, 41), (90, 71)])
def test_a_large_mask_is_resized_as_bytes_with_the_same_pixels(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, columns = np.mgrid[:40, :30]
    mask = (rows - 19.3) ** 2 + (columns - 12.1) ** 2 < 90
    small = geometry.resize_lungs(mask, *size)
    assert small.mean() == pytest.approx(mask.mean(), abs=0.02)
    monkeypatch.setattr(geometry, "MOST_AS_FLOATS", 0)
    large = geometry.resize_lungs(mask, *size)
    assert large.dtype == np.bool_ and np.array_equal(small, large)
