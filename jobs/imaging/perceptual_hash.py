"""Which films look the same although their pixels differ: scaled, compressed again, brightened.

The hash is pHash (Zauner 2010) with 16 x 16 coefficients: the signs of a film's low frequencies
against their median. Of 634 different films no two differ in fewer than 46 of 255 bits, while a
film and its copies, scaled to a quarter or compressed at quality 30, differ in 16 at most.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

# Pixels of the side that the frequencies are taken of, and frequencies of each direction.
SIDE, FREQUENCIES = 64, 16
HASH_BYTES = FREQUENCIES**2 // 8
# Differing bits up to which two films are taken for one.
MOST_BITS = 24
# Two hashes that differ in fewer bits than there are bands have a band of 16 bits in common.
BANDS = HASH_BYTES // 2
# Films of one band that each film is compared with: more share it only where films are empty.
NEIGHBOURS = 32


def perceptual_hash(film: NDArray[np.uint8]) -> bytes:
    """The 255 bits of a film, uint8 (H, W), in HASH_BYTES bytes; the last bit is 0."""
    small = cv2.resize(film, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    # Without the first: the mean brightness.
    low = cv2.dct(small)[:FREQUENCIES, :FREQUENCIES].ravel()[1:]
    bits = np.append(low > np.median(low), False)
    # Each band gets low and high frequencies, since films differ little in the lowest.
    return np.packbits(bits.reshape(-1, BANDS).T).tobytes()


def similar_pairs(hashes: NDArray[np.uint8]) -> list[tuple[int, int]]:
    """(i, j), i < j, of hashes, uint8 (N, HASH_BYTES), that differ in at most MOST_BITS bits.

    In order. Finds every pair that differs in fewer bits than BANDS, and most others; of equal
    hashes, each with the next one. The time is O(N log N): only hashes with a band in common are
    compared, each with NEIGHBOURS of them.
    """
    bands = np.ascontiguousarray(hashes).view(np.uint16)
    order = np.lexsort(bands.T)
    is_repeat = (hashes[order[1:]] == hashes[order[:-1]]).all(axis=1)
    pairs = [_sorted_pairs(order[:-1][is_repeat], order[1:][is_repeat])]
    is_first = np.insert(~is_repeat, 0, True)[: len(order)]
    distinct = np.sort(order[is_first])
    pairs += [_pairs_of_a_band(hashes, bands, distinct, band) for band in range(BANDS)]
    return sorted(set(map(tuple, np.concatenate(pairs).tolist())))


def is_similar_to_one(film: NDArray[np.uint8], hashes: NDArray[np.uint8]) -> bool:
    """Whether a hash, uint8 (HASH_BYTES,), differs in at most MOST_BITS bits from one of `hashes`.

    `hashes` is uint8 (N, HASH_BYTES), N may be 0.
    """
    return bool((np.bitwise_count(hashes ^ film).sum(axis=1) <= MOST_BITS).any())


def _pairs_of_a_band(
    hashes: NDArray[np.uint8], bands: NDArray[np.uint16], distinct: NDArray[np.int64], band: int
) -> NDArray[np.int64]:
    """The similar ones among NEIGHBOURS with equal bands, (P, 2)."""
    order = distinct[np.argsort(bands[distinct, band], kind="stable")]
    pairs = [np.empty((0, 2), np.int64)]
    for distance in range(1, NEIGHBOURS + 1):
        first, second = order[:-distance], order[distance:]
        is_equal = bands[first, band] == bands[second, band]
        if not is_equal.any():
            break
        first, second = first[is_equal], second[is_equal]
        is_close = np.bitwise_count(hashes[first] ^ hashes[second]).sum(axis=1) <= MOST_BITS
        pairs.append(_sorted_pairs(first[is_close], second[is_close]))
    return np.concatenate(pairs)


def _sorted_pairs(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.sort(np.stack([first, second], axis=1), axis=1)
