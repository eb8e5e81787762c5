"""From probabilities of lung to a mask: the steps, and their choice on validation films."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.imaging.masks import fill_holes, largest_components
from jobs.segmentation import metrics, quality

# Ordered from 0.5 outwards, since the first of equally good ones is taken.
THRESHOLDS = (0.45, 0.55, 0.4, 0.6, 0.35, 0.65, 0.3, 0.7)
LUNGS = 2
STEPS: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("threshold", THRESHOLDS),
    ("largest_components", (LUNGS,)),
    ("fill_holes", (True,)),
)
# The recipes that `choose` compares: the default one, and one for each value of a step.
CANDIDATES = 1 + sum(len(values) for _, values in STEPS)
# A smaller gain in mean Dice is rounding.
SMALLEST_GAIN = 1e-6
# Standard deviations below the mean quality. 5 to 9 of 100 films like the validation films score
# lower, whether 100 or 6 validation films set the limit; the films of lowest Dice are several times
# as frequent among these.
REVIEW_DEVIATIONS = 2.0


@dataclass(frozen=True)
class MaskRecipe:
    """How probabilities become a mask: a part of model.json's recipe.

    Attributes:
        threshold: probability in [0, 1] from which a pixel is lung.
        largest_components: number of components to keep; 0 keeps all.
        fill_holes: whether holes in the mask become lung.
        review_below: masks of a lower quality score, in [0, 1], are for review.
    """

    threshold: float = 0.5
    largest_components: int = 0
    fill_holes: bool = False
    review_below: float = 0.0

    @classmethod
    def of(cls, recipe: Mapping[str, Any]) -> MaskRecipe:
        """From model.json's recipe; steps that it does not name keep their defaults."""
        names = {field.name for field in fields(cls)} & recipe.keys()
        return cls(**{name: recipe[name] for name in names})


def to_mask(probabilities: NDArray[np.float32], recipe: MaskRecipe) -> NDArray[np.bool_]:
    """The mask, bool (H, W), of probabilities (H, W) in [0, 1]."""
    return clean(np.asarray(probabilities >= recipe.threshold), recipe)


def clean(mask: NDArray[np.bool_], recipe: MaskRecipe) -> NDArray[np.bool_]:
    """The steps after the threshold, on a mask (H, W)."""
    if recipe.largest_components:
        mask = largest_components(mask, recipe.largest_components)
    return fill_holes(mask) if recipe.fill_holes else mask


def choose(
    probabilities: NDArray[np.float32],
    masks: NDArray[np.bool_],
    *,
    reach: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """The MaskRecipe with the highest mean Dice on validation films.

    The steps are tried in order, and one is kept only where it raises the mean Dice. The spread of
    the films' quality scores gives `review_below`.

    Args:
        probabilities: (N, S, S) float32 in [0, 1], N at least 1.
        masks: (N, S, S) bool, the truth.
        reach: gets the number of recipes compared, of CANDIDATES, after each.

    Returns:
        The MaskRecipe as a dict, for model.json.
    """

    compared = count(1)

    def mean_dice(recipe: MaskRecipe) -> float:
        pairs = zip(probabilities, masks, strict=True)
        dice = [metrics.dice(to_mask(film, recipe), mask) for film, mask in pairs]
        reach(next(compared))
        return float(np.mean(dice))

    chosen = MaskRecipe()
    best = mean_dice(chosen)
    for name, values in STEPS:
        for candidate in [replace(chosen, **{name: value}) for value in values]:
            if (dice := mean_dice(candidate)) > best + SMALLEST_GAIN:
                chosen, best = candidate, dice
    scores = [quality.score(film) for film in probabilities]
    return asdict(replace(chosen, review_below=review_below(scores)))


def review_below(scores: list[float]) -> float:
    """The quality score, in [0, 1] with 6 digits, below which masks are for review.

    REVIEW_DEVIATIONS below the mean of the validation films' scores: steadier than a quantile
    where these films are a handful.
    """
    deviation = float(np.std(scores, ddof=1)) if len(scores) > 1 else 0.0
    return round(max(0.0, float(np.mean(scores)) - REVIEW_DEVIATIONS * deviation), 6)
