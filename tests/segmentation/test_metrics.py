"""Dice and IoU against scikit-learn, HD95 against scipy.ndimage, by hand, and for empty masks."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.metrics import f1_score, jaccard_score

from jobs.segmentation import metrics
from jobs.segmentation.metrics import (
    count_overlap,
    dice,
    dice_from_counts,
    hd95,
    iou,
    iou_from_counts,
)
from tests.support.films import ellipse

EMPTY = np.zeros((4, 6), dtype=bool)
LEFT = np.zeros((4, 6), dtype=bool)
LEFT[:, :3] = True


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_they_are_scikit_learns_f1_and_jaccard(share: float) -> None:
    random = np.random.default_rng(0)
    one, other = random.random((2, 37, 41)) < share
    assert dice(one, other) == pytest.approx(f1_score(other.ravel(), one.ravel()), abs=1e-15)
    assert iou(one, other) == pytest.approx(jaccard_score(other.ravel(), one.ravel()), abs=1e-15)


def test_a_mask_shifted_by_a_third_is_what_a_hand_counts() -> None:
    shifted = np.roll(LEFT, 1, axis=1)
    assert dice(shifted, LEFT) == pytest.approx(2 * 8 / 24)
    assert iou(shifted, LEFT) == pytest.approx(8 / 16)


def test_two_empty_masks_agree_and_one_empty_mask_does_not() -> None:
    assert dice(EMPTY, EMPTY) == iou(EMPTY, EMPTY) == 1.0
    assert dice(EMPTY, LEFT) == iou(EMPTY, LEFT) == 0.0
    assert dice(LEFT, EMPTY) == iou(LEFT, EMPTY) == 0.0


def hd95_by_distance_maps(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """The larger directed 95th percentile, from the distance of every pixel to each border."""
    borders = [mask & ~ndimage.binary_erosion(mask) for mask in (one, other)]
    maps = [ndimage.distance_transform_edt(~border) for border in borders]
    directed = (maps[1][borders[0]], maps[0][borders[1]])
    diagonal = np.sqrt(one.shape[0] ** 2 + one.shape[1] ** 2)
    return float(100 * max(np.percentile(distances, 95) for distances in directed) / diagonal)


@pytest.mark.parametrize("share", [0.002, 0.05, 0.5, 0.95])
def test_hd95_is_what_distance_maps_give_on_noise(share: float) -> None:
    random = np.random.default_rng(1)
    one, other = random.random((2, 61, 83)) < share
    one[7, 9] = other[40, 2] = True
    assert hd95(one, other) == pytest.approx(hd95_by_distance_maps(one, other), abs=1e-12)
    assert hd95(one, other) == hd95(other, one)


@pytest.mark.parametrize("center", [(0.5, 0.5), (0.5, 0.08), (0.95, 0.95)])
def test_hd95_is_what_distance_maps_give_on_lungs_also_at_the_films_rim(
    center: tuple[float, float],
) -> None:
    lungs = ellipse(300, 240, (0.5, 0.3)) | ellipse(300, 240, (0.5, 0.7))
    predicted = ellipse(300, 240, (0.47, 0.3)) | ellipse(300, 240, center)
    expected = hd95_by_distance_maps(predicted, lungs)
    assert hd95(predicted, lungs) == pytest.approx(expected, abs=1e-12)


def test_a_square_moved_by_three_pixels_is_three_pixels_away() -> None:
    square = np.zeros((30, 40), dtype=bool)
    square[8:18, 8:18] = True
    assert hd95(np.roll(square, 3, axis=1), square) == pytest.approx(100 * 3 / 50)
    assert hd95(square, square) == 0.0


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_hd95_of_borders_too_long_for_a_tree_is_the_same(
    share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = np.random.default_rng(1).random((2, 61, 83)) < share
    one[:7], other[:, :11] = False, False
    expected = hd95_by_distance_maps(one, other)
    monkeypatch.setattr(metrics, "MOST_POINTS", 0)
    monkeypatch.setattr("scipy.spatial.KDTree", lambda *_, **__: pytest.fail("a tree was built"))
    assert hd95(one, other) == pytest.approx(expected, rel=1e-6)


def test_films_of_another_size_have_the_same_hd95() -> None:
    small = [ellipse(200, 160, (0.5, center)) for center in (0.4, 0.45)]
    large = [mask.repeat(4, axis=0).repeat(4, axis=1) for mask in small]
    assert hd95(*large) == pytest.approx(hd95(*small), rel=0.02)


def test_a_small_island_counts_though_the_long_border_is_right() -> None:
    lung = np.zeros((400, 400), dtype=bool)
    lung[50:350, 50:350] = True
    predicted = lung.copy()
    # 80 pixels of border beside the lung's 1,196: 6.3 percent.
    predicted[380:397, 370:395] = True
    borders = [mask & ~ndimage.binary_erosion(mask) for mask in (predicted, lung)]
    maps = [ndimage.distance_transform_edt(~border) for border in borders]
    pooled = np.concatenate([maps[1][borders[0]], maps[0][borders[1]]])
    assert np.percentile(pooled, 95) == 0
    assert hd95(predicted, lung) > 5


def test_hd95_of_empty_masks_is_finite() -> None:
    assert hd95(EMPTY, EMPTY) == 0.0
    assert hd95(EMPTY, LEFT) == hd95(LEFT, EMPTY) == 100.0


def test_other_shapes_are_refused_and_both_are_named() -> None:
    with pytest.raises(ValueError, match=r"\(4, 6\).*\(6, 4\)"):
        dice(LEFT, LEFT.T)
    with pytest.raises(ValueError, match=r"\(4, 6\).*\(1, 6\)"):
        iou(LEFT, LEFT[:1])
    with pytest.raises(ValueError, match=r"\(4, 6\).*\(1, 6\)"):
        hd95(LEFT, LEFT[:1])


def test_counts_of_a_batch_give_each_films_own_figures() -> None:
    masks = np.stack([LEFT, EMPTY, LEFT]), np.stack([np.roll(LEFT, 1, axis=1), EMPTY, EMPTY])
    counts = count_overlap(*(torch.from_numpy(mask) for mask in masks))
    assert [count.tolist() for count in counts] == [[8, 0, 0], [12, 0, 12], [12, 0, 0]]
    expected = [dice(one, other) for one, other in zip(*masks, strict=True)]
    assert dice_from_counts(*counts).tolist() == expected
    expected = [iou(one, other) for one, other in zip(*masks, strict=True)]
    assert iou_from_counts(*counts).tolist() == expected


def test_counts_of_a_million_large_films_do_not_overflow() -> None:
    pixels = 20_000_000 * 1_000_000
    assert dice_from_counts(pixels, pixels, pixels) == 1.0


def test_the_module_loads_no_torch() -> None:
    code = "import sys, jobs.segmentation.metrics; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
