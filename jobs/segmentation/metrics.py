"""Dice and IoU from summed counts. Needs no torch, so that evaluation starts without it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from torch import Tensor


def dice(predicted_mask: NDArray[np.bool_], target_mask: NDArray[np.bool_]) -> float:
    """2 |A and B| / (|A| + |B|) of two masks (H, W); both empty: 1, one of them empty: 0.

    Raises ValueError when the shapes differ.
    """
    return float(dice_from_counts(*_counts(predicted_mask, target_mask)))


def iou(predicted_mask: NDArray[np.bool_], target_mask: NDArray[np.bool_]) -> float:
    """|A and B| / |A or B| of two masks (H, W); both empty: 1, one of them empty: 0.

    Raises ValueError when the shapes differ.
    """
    return float(iou_from_counts(*_counts(predicted_mask, target_mask)))


def dice_from_counts(true_positives: ArrayLike, predicted: ArrayLike, target: ArrayLike) -> Any:
    """Dice, float64, elementwise from counts of pixels, each of any one shape."""
    total = np.asarray(predicted) + np.asarray(target)
    overlap = 2 * np.asarray(true_positives)
    return np.divide(overlap, total, out=np.ones(total.shape), where=total > 0)


def iou_from_counts(true_positives: ArrayLike, predicted: ArrayLike, target: ArrayLike) -> Any:
    """IoU, float64, elementwise from counts of pixels, each of any one shape."""
    intersection = np.asarray(true_positives)
    union = np.asarray(predicted) + np.asarray(target) - intersection
    return np.divide(intersection, union, out=np.ones(union.shape), where=union > 0)


def count_overlap(predicted_masks: Tensor, target_masks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """True positives, predicted and target pixels, int64 (B,), of bool masks (B, H, W)."""
    masks = (predicted_masks & target_masks, predicted_masks, target_masks)
    true_positives, predicted, target = (mask.sum(dim=(1, 2)) for mask in masks)
    return true_positives, predicted, target


def _counts(
    predicted_mask: NDArray[np.bool_], target_mask: NDArray[np.bool_]
) -> tuple[int, int, int]:
    if predicted_mask.shape != target_mask.shape:
        raise ValueError(
            f"masks of {predicted_mask.shape} and {target_mask.shape} differ in shape: give both "
            "at the film's own size"
        )
    true_positives, predicted, target = (
        int(np.count_nonzero(mask))
        for mask in (predicted_mask & target_mask, predicted_mask, target_mask)
    )
    return true_positives, predicted, target
