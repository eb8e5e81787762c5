"""The quality score: its two parts, and its order of doubtful and certain masks."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.metrics import f1_score

from jobs.segmentation.quality import LARGEST_SHIFT, agreement, score, symmetry
from tests.support.films import draw_pair, ellipse

SIZE = 64
RIGHT, LEFT = (ellipse(SIZE, SIZE, (0.5, center)) for center in (0.3, 0.7))


def probabilities(seed: int) -> NDArray[np.float32]:
    """Random lungs with borders of random width."""
    random = np.random.default_rng(seed)
    _, left, right = draw_pair(seed, SIZE, SIZE)
    blurred = ndimage.gaussian_filter((left | right).astype(np.float32), random.uniform(0.5, 6))
    noisy = blurred + random.normal(0, 0.1, blurred.shape)
    return np.asarray(np.clip(noisy, 0, 1).astype(np.float32))


def mirrored_share(mask: NDArray[np.bool_]) -> float:
    """The symmetry, pixel by pixel."""
    width, pixels = mask.shape[1], [tuple(pixel) for pixel in np.argwhere(mask).tolist()]
    center = np.mean([column for _, column in pixels])
    middle = (width - 1) / 2
    center = np.clip(center, middle - LARGEST_SHIFT * width, middle + LARGEST_SHIFT * width)
    both, mask_pixels = round(2 * float(center)), set(pixels)
    return sum((row, both - column) in mask_pixels for row, column in pixels) / len(pixels)


@pytest.mark.parametrize("seed", range(8))
def test_the_agreement_is_the_dice_of_certain_with_possible_lung(seed: int) -> None:
    lung = probabilities(seed)
    expected = f1_score((lung >= 0.9).ravel(), (lung >= 0.1).ravel())
    assert agreement(lung) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("width", [1, 2, 13, 40])
def test_the_symmetry_is_the_share_of_pixels_that_have_a_counterpart(width: int) -> None:
    random = np.random.default_rng(width)
    for _ in range(30):
        mask = random.random((9, width)) < random.uniform(0.2, 0.9)
        mask[4, width // 2] = True
        mask[:, : random.integers(0, width)] &= random.random() < 0.7
        if mask.any():
            assert symmetry(mask) == pytest.approx(mirrored_share(mask), abs=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_the_score_is_19_parts_of_agreement_and_one_of_symmetry(seed: int) -> None:
    lung = probabilities(seed)
    parts = 19 * agreement(lung) + symmetry(lung >= 0.5)
    assert score(lung) == pytest.approx(parts / 20, abs=1e-12)
    assert 0 < score(lung) < 1
    assert type(score(lung)) is float, "json.dumps takes it"


def test_two_equal_lungs_without_a_doubt_have_the_score_1() -> None:
    both = LEFT | LEFT[:, ::-1]
    assert score(both.astype(np.float32)) == 1


@pytest.mark.parametrize("probability", [0.0, 0.09, 0.5])
def test_without_certain_lung_the_agreement_is_0(probability: float) -> None:
    assert agreement(np.full((SIZE, SIZE), probability, np.float32)) == 0


def test_a_film_without_a_mask_has_the_score_0() -> None:
    assert score(np.zeros((SIZE, SIZE), np.float32)) == 0


def test_the_wider_the_border_in_doubt_the_lower_the_score() -> None:
    lungs = (LEFT | RIGHT).astype(np.float32)
    scores = [score(ndimage.gaussian_filter(lungs, sigma)) for sigma in (0.5, 1, 2, 4)]
    assert scores == sorted(set(scores), reverse=True)


def test_a_lung_that_stands_alone_is_not_its_own_counterpart() -> None:
    assert symmetry(LEFT | RIGHT) > 0.9
    assert symmetry(LEFT) < 0.2
    assert symmetry(RIGHT) < 0.2


def test_a_chest_a_little_off_the_middle_is_as_symmetric() -> None:
    both = LEFT | LEFT[:, ::-1]
    assert symmetry(np.roll(both, 3, axis=1)) == symmetry(both) == 1
    assert symmetry(np.roll(both, 8, axis=1)) < 0.9
