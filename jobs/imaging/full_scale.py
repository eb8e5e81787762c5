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
    smaller = [bits for bits in BIT_DEPTHS if bits < depth]
    # Every eighth row shows of most films that they go on above all smaller depths.
    for rows in (samples[::8], samples):
        if smaller:
            counts = _histogram(rows, 2**depth)
            smaller = [bits for bits in smaller if not _goes_on(counts, bits, samples.size)]
    depth = next((bits for bits in smaller if _is_marked(counts, bits)), depth)
    return int(2**depth - 1)


def _histogram(samples: NDArray[np.integer[Any]], values: int) -> NDArray[np.int64]:
    """How many samples have each value from 0 on, int64 (values,)."""
    pixels = samples.astype(np.uint16, copy=False).reshape(samples.shape[0], -1)
    counts = cv2.calcHist([pixels], [0], None, [values], [0, values])
    return np.asarray(counts, dtype=np.int64).ravel()


def _goes_on(counts: NDArray[np.int64], bits: int, size: int) -> bool:
    """Whether some of a film's `size` samples show that it has values of its own above `bits`."""
    if counts[2**bits : 2 ** (bits + 1)].sum() > MOST_BETWEEN * size:
        return True
    above = counts[2**bits :]
    commonest = np.sort(above[above > 0])[::-1]
    return bool(commonest[MARKER_VALUES:].sum() > MOST_MARKED * size)


def _is_marked(counts: NDArray[np.int64], bits: int) -> bool:
    """Whether all values above `bits`, which are few, are markers, padding or hot pixels.

    None is close above the film's own: there a film of more bits goes on.
    """
    above, between = counts[2**bits :], counts[2**bits : 2 ** (bits + 1)]
    is_film = np.count_nonzero(counts[: 2**bits]) >= FILM_VALUES
    return bool(is_film and between.sum() <= above.sum() / 10)
