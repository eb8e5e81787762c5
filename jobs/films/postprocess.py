"""From probabilities of lung to a mask: the steps, and which of them a model's films ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.imaging.masks import fill_holes, largest_components
from jobs.segmentation import metrics, quality

# From 0.5 outwards: of equals the first is taken.
THRESHOLDS = (0.45, 0.55, 0.4, 0.6, 0.35, 0.65, 0.3, 0.7)
LUNGS = 2
STEPS: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("threshold", THRESHOLDS),
    ("largest_components", (LUNGS,)),
    ("fill_holes", (True,)),
)
# Of a mean Dice: less than this is rounding.
SMALLEST_GAIN = 1e-6
# Standard deviations below the mean. Of films like those of validation 5 to 9 in 100 lie there,
# be it told by 100 films or by 6, and the worst by Dice are several times as frequent among them.
REVIEW_DEVIATIONS = 2.0


@dataclass(frozen=True)
class MaskRecipe:
    """The part of model.json's recipe that says how probabilities become a mask.

    Attributes:
        threshold: the least probability that is lung.
        largest_components: how many components to keep; 0 keeps all.
        fill_holes: whether what the mask encloses is lung too.
        review_below: the least quality score of a mask that nobody need look at.
    """

    threshold: float = 0.5
    largest_components: int = 0
    fill_holes: bool = False
    review_below: float = 0.0

    @classmethod
    def of(cls, recipe: Mapping[str, Any]) -> MaskRecipe:
        """What `recipe` says; a model of earlier versions has a threshold and no more."""
        names = {field.name for field in fields(cls)} & recipe.keys()
        return cls(**{name: recipe[name] for name in names})


def to_mask(probabilities: NDArray[np.float32], recipe: MaskRecipe) -> NDArray[np.bool_]:
    """The mask, bool (H, W), of probabilities (H, W) in [0, 1]."""
    mask = np.asarray(probabilities >= recipe.threshold)
    if recipe.largest_components:
        mask = largest_components(mask, recipe.largest_components)
    return fill_holes(mask) if recipe.fill_holes else mask


def choose(probabilities: NDArray[np.float32], masks: NDArray[np.bool_]) -> dict[str, Any]:
    """The MaskRecipe, as model.json holds it, that does best on validation films.

    One step after the other is kept only where it raises the mean Dice; `review_below` comes from
    the spread of the films' quality scores.

    Args:
        probabilities: (N, S, S) float32 in [0, 1], N at least 1.
        masks: (N, S, S) bool, the truth.
    """

    def mean_dice(recipe: MaskRecipe) -> float:
        pairs = zip(probabilities, masks, strict=True)
        return float(np.mean([metrics.dice(to_mask(film, recipe), mask) for film, mask in pairs]))

    chosen = MaskRecipe()
    best = mean_dice(chosen)
    for name, values in STEPS:
        for candidate in [replace(chosen, **{name: value}) for value in values]:
            if (dice := mean_dice(candidate)) > best + SMALLEST_GAIN:
                chosen, best = candidate, dice
    scores = [quality.score(film) for film in probabilities]
    return asdict(replace(chosen, review_below=review_below(scores)))


def review_below(scores: list[float]) -> float:
    """The quality score, in [0, 1] and to 6 digits, below which a mask is unusually doubtful.

    It lies REVIEW_DEVIATIONS under the mean of the validation films' scores. Unlike a quantile of
    them, that is steady enough when these films are a handful.
    """
    deviation = float(np.std(scores, ddof=1)) if len(scores) > 1 else 0.0
    return round(max(0.0, float(np.mean(scores)) - REVIEW_DEVIATIONS * deviation), 6)
