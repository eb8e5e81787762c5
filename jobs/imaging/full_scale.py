"""The white of a film whose samples have more than 8 bits: which value becomes 255."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

# Bits of a detector's samples; samples stored in 16 bits have one of these depths.
BIT_DEPTHS = (8, 10, 12, 14, 16)
# Of a film's pixels. Letters burned in cover 0.1 to 2 %; a film with less than 3 % above a quarter
# of its full scale is nearly black.
MOST_MARKED = 0.03
# Of a film's pixels: those between its brightest and its markers, such as the letters' soft edges.
MOST_BETWEEN = 0.002
# A marker has one value, and so has the padding around a film; two of each.
MARKER_VALUES = 4
# Values that a film has at least; a picture of a few values is a drawing.
FILM_VALUES = 64


def to_eight_bits(samples: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """The table from samples to 0..255, uint8 (65536,): black is 0, full scale and above are 255.

    For samples of any shape. Rounds to the nearest.
    """
    limit = full_scale(samples)
    table = np.full(2**16, 255, np.uint8)
    table[: limit + 1] = np.round(np.arange(limit + 1) * (255 / limit))
    return table


def full_scale(samples: NDArray[np.integer[Any]]) -> int:
    """The largest value of the smallest of BIT_DEPTHS that holds the film, 255 to 65535.

    The film is all samples, without a marker or a padding brighter than its bit depth: a 12-bit
    film with letters burned in at 65535 is one of 12 bits.
    """
    maximum = int(samples.max())
    depth = next(bits for bits in BIT_DEPTHS if maximum < 2**bits)
    if depth > BIT_DEPTHS[0]:
        counts = _histogram(samples)
        smaller = (bits for bits in BIT_DEPTHS if bits < depth)
        depth = next((bits for bits in smaller if _is_marked(counts, bits)), depth)
    return int(2**depth - 1)


def _histogram(samples: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """How many samples have each value, int64 (65536,)."""
    pixels = samples.astype(np.uint16, copy=False).reshape(samples.shape[0], -1)
    counts = cv2.calcHist([pixels], [0], None, [2**16], [0, 2**16])
    return np.asarray(counts, dtype=np.int64).ravel()


def _is_marked(counts: NDArray[np.int64], bits: int) -> bool:
    """Whether a film of `bits` has all values above them from markers, padding or hot pixels.

    Such values are few, or have few pixels, and none is close above the film's own: there a film
    of more bits goes on.
    """
    above, between = counts[2**bits :], int(counts[2**bits : 2 ** (bits + 1)].sum())
    pixels, bright = int(counts.sum()), int(above.sum())
    if between > min(MOST_BETWEEN * pixels, bright / 10):
        return False
    if np.count_nonzero(counts[: 2**bits]) < FILM_VALUES:
        return False
    others = bright - int(np.partition(above, -MARKER_VALUES)[-MARKER_VALUES:].sum())
    return others <= MOST_MARKED * pixels
