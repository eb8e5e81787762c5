"""Films that look the same, by their perceptual hashes."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
from numpy.typing import NDArray

from jobs.imaging.decode import decode_film
from jobs.imaging.geometry import resize
from jobs.imaging.perceptual_hash import (
    BANDS,
    HASH_BYTES,
    MOST_BITS,
    perceptual_hash,
    similar_pairs,
)


def drawing(seed: int, height: int = 320, width: int = 256) -> NDArray[np.uint8]:
    """A smooth random picture, as different from one of another seed as films are."""
    noise = np.random.default_rng(seed).normal(size=(24, 24)).astype(np.float32)
    smooth = cv2.resize(cv2.GaussianBlur(noise, (0, 0), 1.5), (width, height))
    scaled = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    return np.asarray(255 * scaled, dtype=np.uint8)


def bits_between(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> int:
    first, second = (int.from_bytes(perceptual_hash(film)) for film in (one, other))
    return (first ^ second).bit_count()


def hashes(films: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    joined = b"".join(map(perceptual_hash, films))
    return np.frombuffer(joined, np.uint8).reshape(-1, HASH_BYTES)


def test_a_film_at_another_scale_or_compressed_again_has_nearly_the_same_hash() -> None:
    film = drawing(1)
    _, jpeg = cv2.imencode(".jpg", film, [cv2.IMWRITE_JPEG_QUALITY, 30])
    copies = [
        resize(film, 80, 64),
        resize(film, 640, 512),
        decode_film(jpeg.tobytes()),
        np.clip(film * 0.8 + 20, 0, 255).astype(np.uint8),
    ]
    assert max(bits_between(film, copy) for copy in copies) < BANDS


def test_half_of_the_bits_of_different_films_differ() -> None:
    differing = [
        bits_between(drawing(a), drawing(b)) for a, b in itertools.combinations(range(12), 2)
    ]
    assert 100 < np.mean(differing) < 155
    assert min(differing) > MOST_BITS


def test_the_pairs_are_those_of_a_comparison_of_all() -> None:
    films = [drawing(seed) for seed in range(40)]
    films += [resize(films[seed], 130, 100) for seed in (3, 7, 30)]
    table = hashes(films)
    compared = [
        (i, j)
        for i, j in itertools.combinations(range(len(table)), 2)
        if np.bitwise_count(table[i] ^ table[j]).sum() <= MOST_BITS
    ]
    assert similar_pairs(table) == compared == [(3, 40), (7, 41), (30, 42)]


def test_every_pair_below_the_number_of_bands_is_found_wherever_its_bits_lie() -> None:
    rng = np.random.default_rng(2)
    first = rng.integers(0, 256, (200, HASH_BYTES), dtype=np.uint8)
    second = first.copy()
    for row in second:
        for bit in rng.choice(8 * HASH_BYTES, BANDS - 1, replace=False):
            row[bit // 8] ^= 1 << (bit % 8)
    found = set(similar_pairs(np.concatenate([first, second])))
    assert found == {(number, number + 200) for number in range(200)}


def test_films_without_content_cost_no_comparison_of_all_pairs() -> None:
    blank = np.zeros((20_000, HASH_BYTES), np.uint8)
    assert similar_pairs(blank) == [(number, number + 1) for number in range(19_999)]
    assert similar_pairs(blank[:1]) == similar_pairs(blank[:0]) == []
