"""The white of a film whose samples have more than 8 bits: which value becomes 255."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Bits of a detector's samples; samples stored in 16 bits have one of these depths.
BIT_DEPTHS = (8, 10, 12, 14, 16)


def to_eight_bits(samples: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
    """The table from the values of samples of up to 16 bits to 0..255, uint8 (65536,)."""
    limit = full_scale(samples)
    table = np.zeros(2**16, np.uint8)
    table[: limit + 1] = np.round(np.arange(limit + 1) * (255 / limit))
    return table


def full_scale(samples: NDArray[np.integer[Any]]) -> int:
    """The largest value of the smallest of BIT_DEPTHS that holds the samples."""
    maximum = int(samples.max())
    return int(next(2**bits - 1 for bits in BIT_DEPTHS if maximum < 2**bits))
