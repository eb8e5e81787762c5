"""The scores of every model, computed the same way: numpy, at the size of the network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from jobs.segmentation.metrics import dice
from tests.bench.runs import Pixels, Probabilities

THRESHOLD = 0.5


def dices(probabilities: Probabilities, masks: Pixels) -> list[float]:
    """The Dice of each film at a threshold of 0.5; probabilities and masks are (N, S, S)."""
    return dices_of_masks(probabilities >= THRESHOLD, masks)


def dices_of_masks(predicted: NDArray[np.bool_], masks: Pixels) -> list[float]:
    """The Dice of each film; predicted and labelled masks are (N, S, S)."""
    pairs = zip(predicted, masks, strict=True)
    return [dice(predicted_mask, mask > 0) for predicted_mask, mask in pairs]


def summary(values: Sequence[float]) -> dict[str, float]:
    """Mean, median and 5th percentile of the films' Dice."""
    return {
        "dice_mean": float(np.mean(values)),
        "dice_median": float(np.median(values)),
        "dice_p05": float(np.percentile(values, 5)),
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Mean, smallest and largest of the seeds' values."""
    return {"mean": float(np.mean(values)), "min": min(values), "max": max(values)}
