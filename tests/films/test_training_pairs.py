"""Processed films that are not what preprocess writes are refused before they are in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from jobs.errors import BadDataError
from jobs.films.training_pairs import read_pair
from jobs.imaging import decode
from jobs.imaging.encode import encode_mask, encode_png
from jobs.storage.manifest import Manifest, describe, manifest_of
from jobs.storage.s3 import Store

SIZE = 16


def processed(out: str) -> Manifest:
    names = ("job", "recipe", "content_hash", "schema_version")
    empty: dict[str, Any] = {"inputs": {}, "counts": {}, "headline": {}, "details": {}}
    lists: dict[str, Any] = {"files": [], "records": [], "parts": [], "created_by": {}}
    header = {**dict.fromkeys(names, ""), **empty, **lists, "config": {"size": SIZE}}
    return manifest_of(f"{out}/manifest.json", header)


def pair(store: Store, out: str, image: bytes, mask: bytes) -> Any:
    row: dict[str, Any] = {"id": "film1"}
    for name, data in (("image", image), ("mask", mask)):
        store.write(f"{out}/{name}.png", data)
        row[name] = describe(f"{name}.png", data).row()
    return read_pair(store, processed(out), row)  # type: ignore[arg-type]


def test_a_pair_of_the_squares_size_is_read_as_it_was_written(store: Store, out: str) -> None:
    film = np.arange(SIZE * SIZE, dtype=np.uint8).reshape(SIZE, SIZE)
    image, mask = pair(store, out, encode_png(film), encode_mask(film > 100))
    assert np.array_equal(image, film)
    assert np.array_equal(mask, film > 100)


@pytest.mark.parametrize("which", ["image", "mask"])
def test_a_film_far_larger_than_the_square_is_refused_before_it_is_decoded(
    which: str, store: Store, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides = {"image": SIZE, "mask": SIZE, which: 10 * SIZE}
    image = encode_png(np.zeros((sides["image"],) * 2, np.uint8))
    mask = encode_mask(np.zeros((sides["mask"],) * 2, np.bool_))
    for name in ("decode_film", "decode_mask"):
        monkeypatch.setattr(decode, name, lambda _: pytest.fail("it was decoded"))
    with pytest.raises(BadDataError, match=r"mask of film1 cannot be used \(larger than"):
        pair(store, out, image, mask)


def test_a_film_that_is_no_image_is_bad_data_with_its_name(store: Store, out: str) -> None:
    mask = encode_mask(np.ones((SIZE, SIZE), np.bool_))
    with pytest.raises(BadDataError, match=r"mask of film1 .* empty file\): "):
        pair(store, out, b"", mask)
