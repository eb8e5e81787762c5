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
# Close above the film's own values a marker's value has at least this share of the pixels, and so
# many times those of one of the film's brightest values. A value that is farther above, by this
# part of the film's depth, may have fewer.
SMALLEST_MARKER, OFTEN, NEAR = 0.001, 4, 1 / 4
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
    rest = counts[2**bits :].copy()
    rest[_commonest(rest)] = 0
    return bool(rest[: 2**bits].sum() > MOST_BETWEEN * size or rest.sum() > MOST_MARKED * size)


def _is_marked(counts: NDArray[np.int64], bits: int) -> bool:
    """Whether all values above `bits`, which are few, are markers, padding or hot pixels.

    No other is close above the film's own: there a film of more bits goes on.
    """
    own, above = counts[: 2**bits], counts[2**bits :]
    markers = _commonest(above)
    frequent = max(SMALLEST_MARKER * counts.sum(), OFTEN * own[-(2**bits) // 4 :].mean())
    markers = markers[(above[markers] >= frequent) | (markers >= NEAR * 2**bits)]
    between = above[: 2**bits].sum() - above[markers[markers < 2**bits]].sum()
    # Of soft edges, up to a half of a marker of little over the film's own depth lies between.
    is_edge = between <= max(above.sum() / 10, above[markers].sum() / 2)
    return bool(is_edge and np.count_nonzero(own) >= FILM_VALUES)


def _commonest(counts: NDArray[np.int64]) -> NDArray[np.intp]:
    """The indices of the MARKER_VALUES largest counts."""
    rest, indices = counts.copy(), []
    for _ in range(MARKER_VALUES):
        indices.append(rest.argmax())
        rest[indices[-1]] = -1
    return np.array(indices)
