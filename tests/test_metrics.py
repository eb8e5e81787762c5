"""Dice and IoU against scikit-learn, by hand, and where a mask is empty."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, jaccard_score

from jobs.segmentation.metrics import (
    count_overlap,
    dice,
    dice_from_counts,
    iou,
    iou_from_counts,
)

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


def test_other_shapes_are_refused_and_both_are_named() -> None:
    with pytest.raises(ValueError, match=r"\(4, 6\).*\(6, 4\)"):
        dice(LEFT, LEFT.T)
    with pytest.raises(ValueError, match=r"\(4, 6\).*\(1, 6\)"):
        iou(LEFT, LEFT[:1])


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


def test_the_module_is_there_without_torch() -> None:
    code = "import sys, jobs.segmentation.metrics; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
