"""The steps from probabilities to a mask: what they do, and which are kept."""

from __future__ import annotations

import json
import statistics
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.metrics import f1_score

from jobs.films.postprocess import MaskRecipe, choose, review_below, to_mask
from jobs.segmentation import quality
from tests.support.films import ellipse

SIZE = 64
NEUTRAL = {"threshold": 0.5, "largest_components": 0, "fill_holes": False}
LUNGS = ellipse(SIZE, SIZE, (0.5, 0.3)) | ellipse(SIZE, SIZE, (0.5, 0.7))
SPECK = np.zeros((SIZE, SIZE), bool)
SPECK[2:5, 30:34] = True
HOLE = np.zeros((SIZE, SIZE), bool)
HOLE[30:34, 18:21] = True


def steps(chosen: dict[str, Any]) -> dict[str, Any]:
    return {name: chosen[name] for name in NEUTRAL}


def films(image: NDArray[Any], count: int = 6) -> NDArray[Any]:
    return np.repeat(image[np.newaxis], count, axis=0)


def likely(mask: NDArray[np.bool_], inside: float = 0.9) -> NDArray[np.float32]:
    """Probabilities that are `inside` within a mask and 0.1 beside it."""
    return np.where(mask, inside, 0.1).astype(np.float32)


def rough(seed: int, count: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Probabilities with specks, holes and a bias, and the truth that they are about."""
    random = np.random.default_rng(seed)
    masks = np.array([np.roll(LUNGS, random.integers(-4, 5, 2), (0, 1)) for _ in range(count)])
    noise = ndimage.gaussian_filter(random.normal(0, 1, masks.shape), (0, 1, 1))
    logits = 3 * (ndimage.gaussian_filter(masks.astype(float), (0, 2, 2)) - 0.5) + 2 * noise
    found = 1 / (1 + np.exp(-2 * (logits + random.uniform(-1, 1))))
    return found.astype(np.float32), masks


def mask_by_scipy(
    probabilities: NDArray[np.float32], threshold: float, two: bool, fill: bool
) -> NDArray[np.bool_]:
    mask = np.asarray(probabilities >= threshold)
    if two:
        labels, count = ndimage.label(mask, np.ones((3, 3)))
        sizes = np.bincount(labels.ravel(), minlength=count + 1)
        mask = np.isin(labels, 1 + np.argsort(-sizes[1:], kind="stable")[:2]) & mask
    return np.asarray(ndimage.binary_fill_holes(mask)) if fill else mask


def mean_dice(found: NDArray[np.float32], masks: NDArray[np.bool_], *how: Any) -> float:
    scores = [
        f1_score(mask.ravel(), mask_by_scipy(film, *how).ravel())
        for film, mask in zip(found, masks, strict=True)
    ]
    return float(np.mean(scores))


@pytest.mark.parametrize("fill", [False, True])
@pytest.mark.parametrize("components", [0, 2])
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.65])
def test_the_mask_is_that_of_scipy(threshold: float, components: int, fill: bool) -> None:
    for film in rough(0, 6)[0]:
        found = to_mask(film, MaskRecipe(threshold, components, fill))
        assert found.dtype == np.bool_
        assert np.array_equal(found, mask_by_scipy(film, threshold, components == 2, fill))


@pytest.mark.parametrize("seed", range(6))
def test_each_step_is_kept_only_where_it_raises_the_mean_dice(seed: int) -> None:
    found, masks = rough(seed, 6)
    chosen = choose(found, masks)
    threshold, two, fill = 0.5, False, False
    best = mean_dice(found, masks, threshold, two, fill)
    for other in np.arange(0.3, 0.71, 0.05).round(2):
        if (dice := mean_dice(found, masks, other, two, fill)) > best + 1e-6:
            threshold, best = float(other), dice
    if (dice := mean_dice(found, masks, threshold, True, fill)) > best + 1e-6:
        two, best = True, dice
    fill = mean_dice(found, masks, threshold, two, True) > best + 1e-6
    assert steps(chosen) == {
        "threshold": threshold,
        "largest_components": 2 * two,
        "fill_holes": fill,
    }


def test_where_nothing_is_gained_nothing_is_done() -> None:
    chosen = choose(films(LUNGS).astype(np.float32), films(LUNGS))
    assert steps(chosen) == NEUTRAL


@pytest.mark.parametrize(("inside", "threshold"), [(0.47, 0.45), (0.31, 0.3)])
def test_the_threshold_nearest_to_one_half_is_taken(inside: float, threshold: float) -> None:
    found = films(likely(LUNGS, inside))
    assert steps(choose(found, films(LUNGS))) == NEUTRAL | {"threshold": threshold}


def test_specks_are_dropped_unless_they_are_lung() -> None:
    found = films(likely(LUNGS | SPECK))
    dropped = steps(choose(found, films(LUNGS)))
    assert dropped == NEUTRAL | {"largest_components": 2}
    assert steps(choose(found, films(LUNGS | SPECK))) == NEUTRAL


def test_holes_are_filled_unless_they_are_no_lung() -> None:
    found = films(likely(LUNGS & ~HOLE))
    assert steps(choose(found, films(LUNGS))) == NEUTRAL | {"fill_holes": True}
    assert steps(choose(found, films(LUNGS & ~HOLE))) == NEUTRAL


def test_what_is_chosen_can_be_written_as_json_and_read_again() -> None:
    chosen = choose(*rough(1, 6))
    assert json.loads(json.dumps(chosen)) == chosen
    assert MaskRecipe.of(chosen | {"spatial_size": 64}) == MaskRecipe(**chosen)


def test_a_recipe_of_a_threshold_alone_does_nothing_else_and_flags_nothing() -> None:
    older = MaskRecipe.of({"spatial_size": 64, "threshold": 0.4, "precision": "auto"})
    assert older == MaskRecipe(0.4, largest_components=0, fill_holes=False, review_below=0.0)


@pytest.mark.parametrize("count", [2, 6, 100])
def test_the_review_starts_two_standard_deviations_below_the_mean(count: int) -> None:
    scores = np.random.default_rng(count).uniform(0.9, 0.97, count).tolist()
    expected = statistics.mean(scores) - 2 * statistics.stdev(scores)
    assert review_below(scores) == pytest.approx(expected, abs=1e-6)


def test_the_review_starts_at_the_score_of_a_single_film() -> None:
    assert review_below([0.94]) == 0.94


def test_the_review_starts_at_0_at_least() -> None:
    assert review_below([0.0, 0.0, 0.0, 0.9]) == 0.0


def test_the_threshold_of_the_review_is_that_of_the_films_scores() -> None:
    found, masks = rough(2, 6)
    expected = review_below([quality.score(film) for film in found])
    assert choose(found, masks)["review_below"] == expected > 0
