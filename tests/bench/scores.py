"""One scoring for all that is compared: numpy, at the size of the network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from jobs.segmentation.metrics import dice
from tests.bench.runs import Pixels, Probabilities

THRESHOLD = 0.5


def dices(probabilities: Probabilities, masks: Pixels) -> list[float]:
    """The Dice of each film at 0.5, of probabilities and masks (N, S, S)."""
    return dices_of_masks(probabilities >= THRESHOLD, masks)


def dices_of_masks(predicted: NDArray[np.bool_], masks: Pixels) -> list[float]:
    """The Dice of each film, of predicted masks and masks (N, S, S)."""
    return [dice(found, mask > 0) for found, mask in zip(predicted, masks, strict=True)]


def summary(values: Sequence[float]) -> dict[str, float]:
    """How the films' Dice are spread: their mean, median and 5th percentile."""
    return {
        "dice_mean": float(np.mean(values)),
        "dice_median": float(np.median(values)),
        "dice_p05": float(np.percentile(values, 5)),
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """The mean over seeds, the smallest and the largest."""
    return {"mean": float(np.mean(values)), "min": min(values), "max": max(values)}
