"""Previews: what a film looks like small, and how those of a part become one object."""

from __future__ import annotations

import hashlib
import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from jobs.films import preview
from jobs.films.preview import Previews
from jobs.imaging.geometry import Placing
from tests.support.films import draw_pair

# Levels of gray that JPEG and the way through the square change at most, on the mean.
NEAR = 6


def drawn(film: NDArray[np.uint8], mask: NDArray[np.bool_], placing: Placing) -> NDArray[np.int16]:
    """The preview's pixels, RGB (h, w, 3), as Pillow decodes them."""
    placement = placing.place(film)
    jpeg = preview.draw(placement.film_to_square(film), placement, mask)
    image = Image.open(io.BytesIO(jpeg))
    assert image.format == "JPEG"
    return np.array(image.convert("RGB")).astype(np.int16)


def red(pixels: NDArray[np.int16]) -> NDArray[np.bool_]:
    return np.asarray(pixels[..., 0] - pixels[..., 1:].max(axis=2) > 40)


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
@pytest.mark.parametrize(("height", "width"), [(600, 400), (400, 600), (512, 512)])
def test_a_preview_is_the_film_at_its_aspect_with_the_masks_outline(
    height: int, width: int, fit: str
) -> None:
    film, left, right = draw_pair(1, height, width)
    pixels = drawn(film, left | right, Placing(512, fit))
    small = Image.fromarray(film).resize((pixels.shape[1], pixels.shape[0]), Image.Resampling.BOX)
    assert max(pixels.shape) == preview.SIDE
    assert pixels.shape[0] / pixels.shape[1] == pytest.approx(height / width, abs=0.01)
    lungs = Image.fromarray(left | right).resize(small.size, Image.Resampling.NEAREST)
    inside = np.array(lungs)
    edge = inside ^ ndimage.binary_erosion(inside)
    # A line colors no more than the blocks of 8 pixels that it crosses.
    near_edge = ndimage.binary_dilation(edge, np.ones((3, 3)), iterations=8)
    assert red(pixels)[edge].mean() > 0.6
    assert not red(pixels)[~near_edge].any()
    away = ~near_edge
    difference = np.abs(pixels[..., 0] - np.array(small).astype(np.int16))
    assert difference[away].mean() < NEAR


def test_a_network_of_few_pixels_still_gives_a_preview_of_full_size() -> None:
    film, left, right = draw_pair(1, 600, 400)
    assert drawn(film, left | right, Placing(64)).shape == (256, 171, 3)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((30, 40), (30, 40)), ((1, 1), (1, 1)), ((1, 3000), (1, 256)), ((5000, 2), (256, 1))],
)
def test_a_film_of_any_size_has_a_preview_and_a_small_one_is_not_enlarged(
    shape: tuple[int, int], expected: tuple[int, int]
) -> None:
    film = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    assert drawn(film, film > 100, Placing(64, "letterbox", True)).shape[:2] == expected


def test_a_film_without_lung_is_drawn_without_an_outline() -> None:
    film, _, _ = draw_pair(1, 300, 200)
    assert not red(drawn(film, np.zeros(film.shape, np.bool_), Placing(128))).any()


def row(film_id: str, **columns: Any) -> Any:
    return {"id": film_id, "origin": f"{film_id}.png", "status": "ok", **columns}


def test_the_previews_of_a_part_are_one_object_named_by_its_content() -> None:
    written: dict[str, bytes] = {}
    previews = Previews(written.__setitem__)
    for film_id, jpeg in (("b", b"second"), ("a", b"1st"), ("later", b"of the next part")):
        previews.keep(film_id, jpeg)
    rows = [row("a"), row("broken", status="failed", reason="truncated"), row("b")]
    first, failed, second = previews.pack(rows)
    ((key, packed),) = written.items()
    assert key == f"previews/{hashlib.sha256(b'1stsecond').hexdigest()[:16]}.bin"
    assert packed == b"1stsecond"
    assert first == row("a", preview={"key": key, "offset": 0, "bytes": 3})
    assert second == row("b", preview={"key": key, "offset": 3, "bytes": 6})
    assert failed == rows[1]
    (later,) = previews.pack([row("later")])
    assert written[later["preview"]["key"]] == b"of the next part"


def test_a_part_without_a_mask_writes_no_object() -> None:
    written: dict[str, bytes] = {}
    rows = [row("broken", status="failed", reason="truncated")]
    assert Previews(written.__setitem__).pack(rows) == rows
    assert written == {}
