"""A film turned by EXIF with masks that may or may not be, and files of several pictures."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from jobs.films.rows import RawRow
from jobs.films.square import SquareFilm, square_film
from jobs.imaging.decode import ImageError, decode_mask
from jobs.imaging.geometry import Placing
from jobs.storage.manifest import FileRow
from tests.support.films import draw_pair
from tests.support.image_files import exif, saved

SIZE = 64
PLACING = Placing(SIZE, "stretch", False)
# How pixels are stored that the orientation turns upright, from CIPA DC-008, tag 274.
STORED = {
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.T,
    6: lambda pixels: np.rot90(pixels, 1),
    7: lambda pixels: np.rot90(pixels, 2).T,
    8: lambda pixels: np.rot90(pixels, -1),
}


def file_of(pixels: NDArray[Any], orientation: int, *, tagged: bool = True) -> bytes:
    """A JPEG stored for an orientation, with it in its EXIF or not."""
    stored = np.ascontiguousarray(STORED[orientation](pixels))
    options = {"exif": exif(orientation)} if tagged else {}
    return saved(stored, "JPEG", quality=95, **options)


def square_of(film: bytes, *masks: bytes) -> SquareFilm:
    names = ("left", "right") if len(masks) == 2 else ("lungs",)
    files = {"film": film, **dict(zip(names, masks, strict=True))}
    entries = {name: FileRow(key=name, bytes=len(data), sha256="") for name, data in files.items()}
    row = RawRow(
        id="a",
        patient="a",
        source="custom",
        label="unknown",
        origin="films/a.jpg",
        film=entries.pop("film"),
        masks=entries,
    )
    return square_film(row, lambda entry: files[entry["key"]], PLACING)


def drawn(height: int, width: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    film, left, right = draw_pair(1, height, width)
    return film, (left | right) * np.uint8(255)


def reason(film: bytes, *masks: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        square_of(film, *masks)
    return str(caught.value)


def is_upright(square: SquareFilm, lungs: NDArray[np.uint8]) -> bool:
    small = np.asarray(Image.fromarray(lungs).resize((SIZE, SIZE), Image.Resampling.BOX)) > 127
    return bool((decode_mask(square.mask) != small).mean() < 0.02)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_square_film_whose_mask_has_not_its_orientation_is_quarantined(orientation: int) -> None:
    film, lungs = drawn(160, 160)
    turned = file_of(film, orientation)
    said = (
        f"orientation: {orientation} in the film's EXIF and 1 in its mask's: write both upright "
        "(mogrify -auto-orient), or give the mask the film's orientation"
    )
    # The mask drawn on the stored pixels and the one drawn on the film as it is seen look alike.
    assert reason(turned, file_of(lungs, orientation, tagged=False)) == said
    assert reason(turned, file_of(lungs, 1, tagged=False)) == said
    assert reason(turned, saved(Image.fromarray(lungs), "PNG")) == said
    assert is_upright(square_of(turned, file_of(lungs, orientation)), lungs)


@pytest.mark.parametrize("orientation", [2, 3, 4])
def test_a_film_that_is_mirrored_by_exif_is_quarantined_in_every_shape(orientation: int) -> None:
    film, lungs = drawn(160, 128)
    assert reason(file_of(film, orientation), saved(lungs, "PNG")).startswith("orientation: ")


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_the_shape_of_a_mask_tells_how_it_was_drawn_where_the_film_is_no_square(
    orientation: int,
) -> None:
    film, lungs = drawn(160, 128)
    turned = file_of(film, orientation)
    assert is_upright(square_of(turned, saved(lungs, "PNG")), lungs)
    stored = file_of(lungs, orientation, tagged=False)
    assert reason(turned, stored).startswith(f"orientation: {orientation} in the film's EXIF")


def test_a_nearly_square_film_is_read_with_a_mask_of_its_very_size() -> None:
    film, lungs = drawn(161, 160)
    turned = file_of(film, 6)
    assert is_upright(square_of(turned, saved(lungs, "PNG")), lungs)
    assert reason(turned, file_of(lungs, 6, tagged=False)).startswith("orientation: ")


def test_one_mask_of_two_without_the_orientation_is_enough() -> None:
    film, left, right = draw_pair(1, 160, 160)
    masks = [side * np.uint8(255) for side in (left, right)]
    turned = file_of(film, 6)
    square = square_of(turned, *(file_of(mask, 6) for mask in masks))
    assert is_upright(square, masks[0] | masks[1])
    assert reason(turned, file_of(masks[0], 6), saved(masks[1], "PNG")).startswith("orientation: ")


def test_an_upright_film_with_a_turned_mask_is_read_as_both_are_seen() -> None:
    film, lungs = drawn(160, 160)
    assert is_upright(square_of(saved(film, "PNG"), file_of(lungs, 6)), lungs)


def test_a_color_film_with_a_smaller_mask_in_color_is_read() -> None:
    """As in COVID-19 Radiography: films of 299 pixels and masks of 256, gray in three channels."""
    film, _ = drawn(299, 299)
    _, lungs = drawn(256, 256)
    square = square_of(saved(np.dstack([film] * 3), "PNG"), saved(np.dstack([lungs] * 3), "PNG"))
    assert is_upright(square, lungs)
    assert square.lung_fraction == pytest.approx((lungs > 0).mean(), abs=1e-6)


def test_a_mask_of_another_aspect_stays_one() -> None:
    film, lungs = drawn(160, 160)
    assert reason(file_of(film, 6), saved(lungs[:, :80], "PNG")).startswith(
        "mask of another aspect"
    )


def test_a_damaged_mask_of_a_turned_film_is_named_as_the_mask() -> None:
    film, lungs = drawn(160, 160)
    assert reason(file_of(film, 6), saved(lungs, "PNG")[:99]) == "mask truncated"


def test_a_film_of_several_pages_is_read_by_its_first_and_said_with_its_name(
    caplog: pytest.LogCaptureFixture,
) -> None:
    film, lungs = drawn(160, 128)
    buffer = io.BytesIO()
    pages = [Image.fromarray(film), Image.fromarray(film[:, ::-1].copy())]
    pages[0].save(buffer, "TIFF", save_all=True, append_images=pages[1:])
    both = square_of(buffer.getvalue(), saved(lungs, "PNG"))
    assert caplog.messages == ["films/a.jpg: the first of 2 pages is read"]
    assert both == square_of(saved(film, "PNG"), saved(lungs, "PNG"))
    assert len(caplog.messages) == 1
