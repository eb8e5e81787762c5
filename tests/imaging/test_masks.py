"""Merging, cleaning, measuring and drawing of masks."""

from __future__ import annotations

import time

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from jobs import evaluate, preprocess
from jobs.imaging.masks import (
    BACKGROUND,
    FRAME,
    LARGEST_SHEET,
    contact_sheet,
    fill_holes,
    largest_components,
    lung_fraction,
    merge,
    outline,
)

GREEN, RED = (0, 255, 0), (255, 0, 0)


def box(top: int, bottom: int, left: int, right: int) -> NDArray[np.bool_]:
    mask = np.zeros((100, 120), bool)
    mask[top:bottom, left:right] = True
    return mask


def mostly(color: tuple[int, int, int], pixel: NDArray[np.uint8]) -> bool:
    """Whether a pixel has about a color, which anti-aliasing may have mixed with another."""
    return bool(np.abs(pixel.astype(int) - color).max() < 60)


LEFT, RIGHT = box(10, 90, 10, 60), box(20, 80, 50, 110)


def test_masks_that_overlap_are_merged_by_or() -> None:
    merged = merge([LEFT, RIGHT, LEFT])
    expected = [
        [a or b for a, b in zip(*rows, strict=True)] for rows in zip(LEFT, RIGHT, strict=True)
    ]
    assert merged.dtype == np.bool_
    assert merged.tolist() == expected


def test_merging_does_not_change_the_masks() -> None:
    left = LEFT.copy()
    merge([left, RIGHT])
    assert np.array_equal(left, LEFT)


def test_masks_of_different_shapes_are_refused_with_both_shapes() -> None:
    with pytest.raises(ValueError, match=r"different shapes: \(100, 120\) and \(120, 100\)"):
        merge([LEFT, RIGHT.T])


def test_the_lung_fraction_is_the_share_of_the_pixels_that_are_lung() -> None:
    assert lung_fraction(LEFT) == 80 * 50 / (100 * 120)
    assert lung_fraction(LEFT & ~LEFT) == 0
    assert lung_fraction(LEFT | ~LEFT) == 1


def ragged(seed: int) -> NDArray[np.bool_]:
    """A random mask with components inside holes, at the border and touching at corners."""
    random = np.random.default_rng(seed)
    noise = random.random(random.integers(1, 40, 2))
    smooth = np.asarray(ndimage.gaussian_filter(noise, random.uniform(0, 1.5)))
    return smooth > np.quantile(smooth, random.uniform(0.05, 0.95))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_largest_components_are_whole_and_as_large_as_those_of_scipy(count: int) -> None:
    masks_with_more = 0
    for seed in range(400):
        mask = ragged(seed)
        labels, components = ndimage.label(mask, np.ones((3, 3)))
        sizes = np.bincount(labels.ravel(), minlength=components + 1)
        largest = largest_components(mask, count)
        remaining = [n for n in range(1, components + 1) if largest[labels == n].any()]
        assert np.array_equal(largest, np.isin(labels, remaining))
        assert sorted(sizes[remaining]) == sorted(sizes[1:])[-count:]
        masks_with_more += components > count
    assert 100 < masks_with_more < 400, "masks with too many components and others are tested"


def test_pixels_that_touch_at_a_corner_are_one_component() -> None:
    mask = np.eye(6, dtype=bool)
    mask[0, 3:6] = True
    assert np.array_equal(largest_components(mask, 1), np.eye(6, dtype=bool))


def test_holes_are_filled_as_by_scipy() -> None:
    masks_with_holes = 0
    for seed in range(400):
        mask = ragged(seed)
        expected = ndimage.binary_fill_holes(mask)
        assert np.array_equal(fill_holes(mask), expected)
        masks_with_holes += int((expected & ~mask).any())
    assert masks_with_holes > 100


def test_cleaning_does_not_change_the_mask_itself() -> None:
    mask = ragged(3)
    before = mask.copy()
    for cleaned in (largest_components(mask, 99), largest_components(mask, 1), fill_holes(mask)):
        cleaned[:] = True
        assert np.array_equal(mask, before)


def test_an_empty_mask_stays_empty() -> None:
    empty = np.zeros((5, 7), bool)
    assert not largest_components(empty, 2).any()
    assert not fill_holes(empty).any()


def test_a_mask_of_20_megapixels_is_cleaned_within_two_seconds() -> None:
    mask = np.kron(LEFT | box(20, 80, 70, 110) | box(0, 3, 0, 3), np.ones((40, 40), bool))
    mask[1000:1100, 1000:1100] = False
    started = time.process_time()
    cleaned = fill_holes(largest_components(mask, 2))
    assert time.process_time() - started < 2
    assert np.count_nonzero(cleaned) == (80 * 50 + 60 * 40) * 40 * 40


def test_an_outline_is_on_the_border_of_the_mask_and_nowhere_else() -> None:
    film = np.full((100, 120), 77, np.uint8)
    drawing = outline(film, [(LEFT, GREEN)], thickness=1)
    assert drawing.dtype == np.uint8
    assert drawing.shape == (100, 120, 3)
    for row, column in ((10, 30), (89, 30), (50, 10), (50, 59)):
        assert mostly(GREEN, drawing[row, column])
    assert (drawing[14:86, 14:56] == 77).all()
    assert (drawing[:, 64:] == 77).all()
    assert (film == 77).all()


def test_a_thicker_outline_covers_more_pixels() -> None:
    film = np.zeros((100, 120), np.uint8)
    covered = [np.count_nonzero(outline(film, [(LEFT, GREEN)], width)) for width in (1, 2, 4)]
    assert covered == sorted(set(covered))


def test_each_mask_has_its_color_and_holes_have_an_outline() -> None:
    film = np.zeros((100, 120), np.uint8)
    ring = LEFT & ~box(40, 60, 25, 45)
    drawing = outline(film, [(ring, GREEN), (RIGHT, RED)], thickness=1)
    assert mostly(GREEN, drawing[50, 10])
    assert drawing[40:60, 23:26, 1].max(axis=1).all()
    assert mostly(RED, drawing[50, 109])


def test_an_empty_mask_draws_nothing() -> None:
    film = np.arange(100 * 120, dtype=np.uint8).reshape(100, 120)
    assert np.array_equal(outline(film, [(LEFT & ~LEFT, GREEN)]), np.dstack([film] * 3))


def test_a_mask_of_another_shape_than_the_film_is_refused_with_both_shapes() -> None:
    with pytest.raises(ValueError, match=r"\(120, 100\) on a film of \(100, 120\)"):
        outline(np.zeros((100, 120), np.uint8), [(LEFT.T, GREEN)])


def plain(color: tuple[int, int, int], height: int = 100, width: int = 120) -> NDArray[np.uint8]:
    return np.full((height, width, 3), color, np.uint8)


def cells(sheet: NDArray[np.uint8]) -> list[tuple[int, int]]:
    """(top, left) of each framed cell of 100 + 11 pixels, by its bottom left pixel."""
    framed = (sheet == FRAME).all(axis=2)
    return [
        (top, left)
        for top in range(5, sheet.shape[0] - 100, 116)
        for left in range(5, sheet.shape[1] - 99, 105)
        if framed[top + 110, left]
    ]


def test_a_sheet_has_one_cell_for_each_tile() -> None:
    sheet = contact_sheet([(plain(RED), "one")] * 5, columns=3, tile=100)
    assert sheet.dtype == np.uint8
    assert sheet.shape == (2 * 116 + 5, 3 * 105 + 5, 3)
    assert len(cells(sheet)) == 5
    assert (sheet[116 + 5 :, 2 * 105 + 5 :] == BACKGROUND).all()


@pytest.mark.parametrize(("height", "width"), [(50, 400), (400, 50), (30, 30), (1, 999)])
def test_an_image_fits_its_tile_at_its_aspect_ratio(height: int, width: int) -> None:
    sheet = contact_sheet([(plain(RED, height, width), "")], columns=1, tile=100)
    rows, columns = np.nonzero((sheet == RED).all(axis=2))
    shown = (int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1)
    longer = max(height, width)
    assert shown == (max(1, height * 100 // longer), max(1, width * 100 // longer))
    assert abs(rows.mean() - (5 + 49.5)) <= 1
    assert abs(columns.mean() - (5 + 49.5)) <= 1


def test_tiles_are_in_reading_order() -> None:
    colors = [(200, index, 0) for index in range(4)]
    sheet = contact_sheet([(plain(color), "") for color in colors], columns=2, tile=100)
    shown = [sheet[top + 50, left + 50].tolist() for top, left in cells(sheet)]
    assert shown == [list(color) for color in colors]


def test_a_caption_is_written_in_the_strip_below_its_image() -> None:
    without_caption = contact_sheet([(plain(RED), "")], columns=1, tile=256)
    captioned = contact_sheet([(plain(RED), "MCUCXR_0001_0")], columns=1, tile=256)
    differs = (without_caption != captioned).any(axis=2)
    rows = np.nonzero(differs.any(axis=1))[0]
    assert 12 + 256 <= rows.min() < rows.max() < 12 + 256 + 28
    assert np.count_nonzero(differs) > 200


def test_a_long_caption_ends_within_its_tile() -> None:
    sheet = contact_sheet([(plain(RED), "lung " * 60)], columns=2, tile=256)
    assert (sheet[:, 12 + 256 :] == BACKGROUND).all()
    assert (sheet[:, :12] == BACKGROUND).all()


def test_a_sheet_without_tiles_is_an_empty_row() -> None:
    assert (contact_sheet([], columns=3, tile=100) == BACKGROUND).all()


def test_the_same_tiles_make_the_same_sheet() -> None:
    tiles = [(plain(RED), "one"), (plain(GREEN), "two")]
    assert np.array_equal(contact_sheet(tiles, 2), contact_sheet(tiles, 2))


def test_no_contact_sheet_of_a_job_is_larger_than_what_publish_decodes() -> None:
    films = [(plain(RED), "")] * preprocess.SHEET_FILMS
    worst = [(plain(RED), "")] * evaluate.WORST_FILMS
    for sheet in (
        contact_sheet(films, preprocess.SHEET_COLUMNS, preprocess.TILE_PIXELS),
        contact_sheet(worst, evaluate.WORST_COLUMNS, evaluate.WORST_TILE),
    ):
        assert 2 * sheet.shape[0] * sheet.shape[1] <= LARGEST_SHEET
