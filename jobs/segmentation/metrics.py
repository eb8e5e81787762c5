"""Dice and IoU from summed counts, HD95 from borders. Loads no torch: evaluation needs none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from torch import Tensor

# Percent of the diagonal: no two pixels of a film lie farther apart.
FARTHEST = 100.0
# Pixels of a border that go into a tree; a mask of noise has more, a lung's some ten thousand.
MOST_POINTS = 1_000_000
CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


def dice(predicted_mask: NDArray[np.bool_], target_mask: NDArray[np.bool_]) -> float:
    """2 |A and B| / (|A| + |B|) of two masks (H, W), 0..1; both empty: 1, one of them empty: 0.

    Raises ValueError where the shapes differ.
    """
    return float(dice_from_counts(*_counts(predicted_mask, target_mask)))


def iou(predicted_mask: NDArray[np.bool_], target_mask: NDArray[np.bool_]) -> float:
    """|A and B| / |A or B| of two masks (H, W), 0..1; both empty: 1, one of them empty: 0.

    Raises ValueError where the shapes differ.
    """
    return float(iou_from_counts(*_counts(predicted_mask, target_mask)))


def hd95(predicted_mask: NDArray[np.bool_], target_mask: NDArray[np.bool_]) -> float:
    """95th percentile of the distance between the borders of two masks (H, W).

    In percent of the film's diagonal, 0..100, so that films of several sizes can be averaged. The
    border is the mask's pixels that share a side with a pixel outside the mask; beyond the film is
    outside. The larger of both directed percentiles, as in Metrics Reloaded (Maier-Hein et al.,
    Nature Methods 2024), MONAI and DeepMind's surface-distance. Over both borders pooled, as in
    MedPy, a long correct border would hide a short wrong one. Both masks empty: 0; one of them
    empty: 100.

    Raises ValueError where the shapes differ.
    """
    _check_shapes(predicted_mask, target_mask)
    pair = (predicted_mask, target_mask)
    lengths = [np.count_nonzero(_border(mask)[0]) for mask in pair]
    if not all(lengths):
        return FARTHEST if any(lengths) else 0.0
    measure = _farther_by_trees if max(lengths) <= MOST_POINTS else _farther_by_maps
    return float(measure(*pair) / np.hypot(*target_mask.shape) * 100)


def dice_from_counts(true_positives: ArrayLike, predicted: ArrayLike, target: ArrayLike) -> Any:
    """Dice, float64, elementwise from counts of pixels, three of the same shape."""
    total = np.asarray(predicted) + np.asarray(target)
    overlap = 2 * np.asarray(true_positives)
    return np.divide(overlap, total, out=np.ones(total.shape), where=total > 0)


def iou_from_counts(true_positives: ArrayLike, predicted: ArrayLike, target: ArrayLike) -> Any:
    """IoU, float64, elementwise from counts of pixels, three of the same shape."""
    intersection = np.asarray(true_positives)
    union = np.asarray(predicted) + np.asarray(target) - intersection
    return np.divide(intersection, union, out=np.ones(union.shape), where=union > 0)


def count_overlap(predicted_masks: Tensor, target_masks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """True positives, predicted and target pixels, int64 (B,), of bool masks (B, H, W)."""
    masks = (predicted_masks & target_masks, predicted_masks, target_masks)
    true_positives, predicted, target = (mask.sum(dim=(1, 2)) for mask in masks)
    return true_positives, predicted, target


def _farther_by_trees(*pair: NDArray[np.bool_]) -> float:
    """The larger of both directed 95th percentiles between the borders of two masks, in pixels."""
    # A tree is exact and takes a quarter of the time of a distance transform over all pixels.
    from scipy.spatial import KDTree

    borders = [_points(mask) for mask in pair]
    trees = [KDTree(points, balanced_tree=False, compact_nodes=False) for points in borders]
    directed = (trees[1].query(borders[0])[0], trees[0].query(borders[1])[0])
    return float(max(np.percentile(distances, 95) for distances in directed))


def _farther_by_maps(*pair: NDArray[np.bool_]) -> float:
    """The same by distances of all pixels: its memory does not grow with the borders' length."""
    directed = []
    for one, other in (pair, pair[::-1]):
        outside = np.ones(other.shape, np.uint8)
        border, box = _border(other)
        outside[box] -= border
        del border
        distances: NDArray[Any] = cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        del outside
        of_border = _chosen(distances, *_border(one))
        directed.append(np.percentile(of_border, 95, overwrite_input=True))
        # The next map takes its place.
        del distances, of_border
    return float(max(directed))


def _chosen(
    values: NDArray[np.float32], is_chosen: NDArray[np.uint8], box: tuple[slice, slice]
) -> NDArray[np.float32]:
    """The values (H, W) of a box where `is_chosen`, float32 (n,), in the memory of `values`."""
    flat, count = values.reshape(-1), 0
    for row, is_kept in zip(values[box], is_chosen.view(np.bool_), strict=True):
        kept = row[is_kept]
        flat[count : count + len(kept)] = kept
        count += len(kept)
    return flat[:count]


def _points(mask: NDArray[np.bool_]) -> NDArray[np.int32]:
    """(x, y) of the pixels at the border of a mask (H, W) with lung, int32 (n, 2)."""
    border, (rows, columns) = _border(mask)
    points = np.asarray(cv2.findNonZero(border), dtype=np.int32).reshape(-1, 2)
    return points + np.array((columns.start, rows.start), dtype=np.int32)


def _border(mask: NDArray[np.bool_]) -> tuple[NDArray[np.uint8], tuple[slice, slice]]:
    """(1 at the border of a mask (H, W) and 0 elsewhere, uint8; where this part lies in it)."""
    left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
    box = slice(top, top + height), slice(left, left + width)
    inside = mask[box].view(np.uint8)
    if not inside.size:
        return inside, box
    core = cv2.erode(inside, CROSS, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return np.asarray(np.subtract(inside, core, out=core), dtype=np.uint8), box


def _counts(
    predicted_mask: NDArray[np.bool_], target_mask: NDArray[np.bool_]
) -> tuple[int, int, int]:
    _check_shapes(predicted_mask, target_mask)
    true_positives, predicted, target = (
        int(np.count_nonzero(mask))
        for mask in (predicted_mask & target_mask, predicted_mask, target_mask)
    )
    return true_positives, predicted, target


def _check_shapes(predicted_mask: NDArray[np.bool_], target_mask: NDArray[np.bool_]) -> None:
    if predicted_mask.shape != target_mask.shape:
        raise ValueError(
            f"masks of {predicted_mask.shape} and {target_mask.shape} differ in shape: give both "
            "at the film's own size"
        )
