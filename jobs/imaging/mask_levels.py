"""The levels of a mask: its values with areas of their own, and which level a pixel belongs to.

The values between two levels along an edge, which resizing and JPEG leave, are no levels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

# A gray value, 0..65535, or red, green and blue, each 0..255.
Value = int | tuple[int, int, int]
# uint8 or uint16 (H, W), or BGR uint8 (H, W, 3).
Samples = NDArray[Any]

# The share of the frame that a level takes at least, away from edges.
SMALLEST_LEVEL = 0.005
# The ringing of a JPEG around a level, and the spread of a level, as shares of the mask's range.
RINGING, SPREAD = 12 / 255, 2 / 255
# The box of one value around a pixel that is away from edges: this part of the mask's shorter side,
# and its pixels at least. A value within another's ringing must fill the second box, which is wider
# than a JPEG's blocks.
BOX, WIDE_BOX = (128, 3), (40, 11)
# Pixels that are searched for levels; of larger masks every second, third, ... row and column.
SEARCHED = 2**22
# Distinct values, the most frequent ones, that are considered.
COUNTED = 4096
# A mask of more distinct values is resized, blurred or lossy, or holds probabilities.
FEW_VALUES = 32
# Pixels of color compared at a time.
STRIPE = 2**22


class Level(NamedTuple):
    """A value of a mask, and the share of the frame, 0..1, that it and values near it take."""

    value: Value
    share: float

    def __str__(self) -> str:
        return f"{name_of(self.value)} ({100 * self.share:.1f} %)"


def name_of(value: Value) -> str:
    """The value as in --mask-values: 2, or #ff0000."""
    return "#{:02x}{:02x}{:02x}".format(*value) if isinstance(value, tuple) else str(value)


def strength(value: Value) -> int:
    """A gray value, or a color's strongest channel."""
    return max(value) if isinstance(value, tuple) else value


def distance(one: Value, other: Value) -> int:
    """The largest difference of a channel."""
    if isinstance(one, tuple) and isinstance(other, tuple):
        return max(abs(a - b) for a, b in zip(one, other, strict=True))
    return abs(strength(one) - strength(other))


def find_levels(samples: Samples) -> list[Level]:
    """The levels of a mask, the darkest first; none where no value has an area of its own."""
    searched = thinned(samples)
    if levels := _two_levels(searched):
        return levels
    values, counts = count(_pixels(searched))
    size = searched.shape[0] * searched.shape[1]
    if len(values) <= 2 or sum(counts[:2]) >= (1 - SMALLEST_LEVEL) * size:
        main = values[:2]
    else:
        main = _flat_values(searched, size, is_exact=len(values) <= FEW_VALUES)
    if not main:
        return []
    owners = _nearest_of(_array_of(values), main)
    shares = np.bincount(owners, weights=counts, minlength=len(main)) / size
    levels = [Level(value, float(share)) for value, share in zip(main, shares, strict=True)]
    return sorted(levels, key=lambda level: (strength(level.value), _key(level.value)))


def ringing(samples: Samples) -> float:
    """How far the ringing of a JPEG takes the values of a mask from their level."""
    return RINGING * _span(thinned(samples))


def thinned(samples: NDArray[Any]) -> NDArray[Any]:
    """The samples, contiguous; of more than SEARCHED pixels every second, third, ... line."""
    step = 1
    while samples.shape[0] * samples.shape[1] > SEARCHED * step * step:
        step += 1
    return np.ascontiguousarray(samples[::step, ::step])


def distinct_values(samples: Samples) -> list[Value]:
    """The most frequent values of the thinned samples, the most frequent first."""
    return count(_pixels(thinned(samples)))[0]


def count(pixels: NDArray[Any]) -> tuple[list[Value], list[int]]:
    """The COUNTED most frequent values of gray (n,) or BGR (n, 3), and how often they occur."""
    if not len(pixels):
        return [], []
    if pixels.ndim == 2:
        blue, green, red = (pixels[:, channel].astype(np.int32) for channel in range(3))
        codes, counts = np.unique(red << 16 | green << 8 | blue, return_counts=True)
    else:
        is_byte = pixels.dtype == np.uint8
        histogram = _histogram(pixels) if is_byte else np.bincount(pixels)
        codes = np.flatnonzero(histogram)
        counts = histogram[codes].astype(np.int64)
    order = np.argsort(-counts, kind="stable")[:COUNTED]
    values = codes[order].tolist()
    if pixels.ndim == 2:
        values = [(code >> 16, code >> 8 & 255, code & 255) for code in values]
    return values, counts[order].tolist()


def nearest(samples: Samples, values: Sequence[Value]) -> NDArray[np.uint16]:
    """The index of the nearest of `values`, 1 or more, for each pixel, (H, W)."""
    if samples.ndim == 2:
        table = _nearest_of(np.arange(int(samples.max()) + 1)[:, np.newaxis], values)
        return table.astype(np.uint16)[samples]
    indices: NDArray[np.uint16] = np.empty(samples.shape[:2], np.uint16)
    for rows in stripes(samples):
        colors = samples[rows][:, :, ::-1].reshape(-1, 3).astype(np.int32)
        indices[rows] = _nearest_of(colors, values).reshape(indices[rows].shape)
    return indices


def stripes(samples: Samples) -> list[slice]:
    """The rows of a mask in parts of at most STRIPE pixels."""
    rows = max(1, STRIPE // samples.shape[1])
    return [slice(start, start + rows) for start in range(0, len(samples), rows)]


def _two_levels(searched: Samples) -> list[Level]:
    """The levels of gray with two values at most, without a histogram's cost; [] for others."""
    if searched.ndim != 2:
        return []
    darkest, brightest = int(searched.min()), int(searched.max())
    share = float(np.count_nonzero(searched == brightest) / searched.size)
    if darkest == brightest:
        return [Level(brightest, share)]
    rest = float(np.count_nonzero(searched == darkest) / searched.size)
    return [Level(darkest, rest), Level(brightest, share)] if rest + share > 1 - 1e-9 else []


def _flat_values(searched: Samples, size: int, *, is_exact: bool) -> list[Value]:
    """The values that fill boxes of their own, the most frequent first.

    Values close to another level's are levels in masks of few values alone (`is_exact`): in others
    they are the ringing of a JPEG, or probabilities close to 0 and 1.
    """
    smallest, span = SMALLEST_LEVEL * size, _span(searched)
    flat = list(zip(*count(searched[_is_flat(searched, *BOX)]), strict=True))
    wide: dict[Value, int] = {}
    levels: dict[Value, int] = {}
    for value, pixels in flat:
        if pixels < smallest / 10:
            break
        if any(distance(value, level) <= RINGING * span for level in levels):
            wide = wide or (dict(_wide(searched)) if is_exact else {})
            pixels = wide.get(value, 0)
        else:
            pixels = sum(count for near, count in flat if distance(value, near) <= SPREAD * span)
        if pixels >= smallest:
            levels[value] = pixels
    main = list(levels)[:2]
    between = sum(
        pixels
        for value, pixels in flat
        if all(distance(value, level) > RINGING * span for level in main)
    )
    # Of a continuum, a few values happen to be frequent.
    third = sum(pixels for value, pixels in levels.items() if value not in main)
    return main if len(flat) > FEW_VALUES and 2 * third < between else list(levels)


def _wide(searched: Samples) -> Iterator[tuple[Value, int]]:
    return zip(*count(searched[_is_flat(searched, *WIDE_BOX)]), strict=True)


def _is_flat(searched: Samples, part: int, smallest: int) -> NDArray[np.bool_]:
    """Whether each pixel is in the middle of a box of its own value."""
    side = max(smallest, min(searched.shape[:2]) // part | 1)
    box = np.ones((side, side), np.uint8)
    is_equal = cv2.erode(searched, box) == cv2.dilate(searched, box)
    return np.asarray(is_equal if searched.ndim == 2 else is_equal.all(axis=2))


def _pixels(samples: Samples) -> NDArray[Any]:
    """Gray (n,) or BGR (n, 3)."""
    return samples.reshape(-1) if samples.ndim == 2 else samples.reshape(-1, 3)


def _histogram(pixels: NDArray[np.uint8]) -> NDArray[Any]:
    return np.asarray(cv2.calcHist([pixels[:, np.newaxis]], [0], None, [256], [0, 256]).ravel())


def _span(searched: Samples) -> int:
    """The range of the values, for BGR that of the channel with the widest one."""
    flat = searched.reshape(searched.shape[0] * searched.shape[1], -1)
    return int(max(flat.max(axis=0).astype(int) - flat.min(axis=0)))


def _key(value: Value) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,)


def _array_of(values: Sequence[Value]) -> NDArray[Any]:
    """Gray as (n, 1), colors as red, green, blue (n, 3)."""
    return np.array(values, np.int32).reshape(len(values), -1)


def _nearest_of(codes: NDArray[Any], values: Sequence[Value]) -> NDArray[np.intp]:
    """The index of the nearest of `values` for each of `codes`, (n, 1) or (n, 3)."""
    nearest_values = np.zeros(len(codes), np.intp)
    least = np.full(len(codes), np.iinfo(np.int64).max)
    for index, value in enumerate(_array_of(values).astype(np.int64)):
        distances = ((codes - value) ** 2).sum(axis=1)
        nearest_values[distances < least] = index
        least = np.minimum(least, distances)
    return nearest_values
