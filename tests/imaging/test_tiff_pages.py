"""Which page of a TIFF is the film, in both byte orders, as TIFF and as BigTIFF."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from jobs.imaging import pictures, tiff_pages
from jobs.imaging.decode import ImageError, decode_film, decode_mask, working_bytes
from jobs.imaging.file_parts import MOST_PARTS
from tests.support.image_files import MASK, saved, tiff

# A film that is a mask too.
FILM = MASK
THUMBNAIL = np.ascontiguousarray(FILM[::4, ::4] // 2)
LATERAL = np.ascontiguousarray(255 - FILM)


@dataclass(frozen=True)
class Picture:
    """A page's gray pixels, its further tags, and the pages that it holds (SubIFDs)."""

    pixels: NDArray[np.uint8]
    tags: dict[int, int] = field(default_factory=dict)
    held: tuple[Picture, ...] = ()


def pages_of(*pages: Picture, order: str = "<", big: bool = False) -> bytes:
    """An uncompressed TIFF of one strip a page, written from the standard."""
    offset, number, entry = ("Q", "Q", "HHQQ") if big else ("I", "H", "HHII")
    head = struct.pack(f"{order}HHHQ", 43, 8, 0, 0) if big else struct.pack(f"{order}HI", 42, 0)
    data = bytearray((b"II" if order == "<" else b"MM") + head)

    def put(page: Picture, after: int) -> int:
        """Write a page and return its directory's place; `after` is that of the next."""
        held = [put(inner, 0) for inner in page.held]
        strip = len(data)
        data.extend(page.pixels.tobytes())
        height, width = page.pixels.shape
        tags = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: strip, 277: 1, 278: height}
        tags |= {279: page.pixels.size, **page.tags}
        counts = dict.fromkeys(tags, 1)
        if held:
            tags[330], counts[330] = (held[0] if len(held) == 1 else len(data)), len(held)
            if len(held) > 1:
                data.extend(struct.pack(f"{order}{len(held)}I", *held))
        place = len(data)
        data.extend(struct.pack(order + number, len(tags)))
        for tag, value in sorted(tags.items()):
            # A single SHORT is at the left of its field.
            kind = "HHQHxxxxxx" if big else "HHIHxx"
            short = tag in (254, 255) and value < 2**16
            form, type_ = (kind, 3) if short else (entry, 4)
            if big and not short:
                form = "HHQIxxxx"
            data.extend(struct.pack(order + form, tag, type_, counts[tag], value))
        data.extend(struct.pack(order + offset, after))
        return place

    after = 0
    for page in reversed(pages):
        after = put(page, after)
    struct.pack_into(order + offset, data, 8 if big else 4, after)
    return bytes(data)


LAYOUTS = {"little": ("<", False), "big-endian": (">", False), "BigTIFF": ("<", True)}
SMALL = Picture(THUMBNAIL, {254: 1})
FILES = {
    "a thumbnail first": ((SMALL, Picture(FILM)), ""),
    "two thumbnails first": ((SMALL, SMALL, Picture(FILM, {254: 0})), ""),
    "a thumbnail second": ((Picture(FILM), SMALL), ""),
    "an old thumbnail first": ((Picture(THUMBNAIL, {255: 2}), Picture(FILM, {255: 1})), ""),
    "a transparency mask first": ((Picture(LATERAL, {254: 4}), Picture(FILM)), ""),
    "a thumbnail of one page of several": ((Picture(THUMBNAIL, {254: 3}), Picture(FILM)), ""),
    "pages of a document": (
        (Picture(FILM, {254: 2}), Picture(LATERAL, {254: 2})),
        "the first of 2 pages is read",
    ),
    "a thumbnail, then two views": (
        (SMALL, Picture(FILM), Picture(LATERAL)),
        "the first of 2 pages is read",
    ),
    "every page marked alike": ((SMALL, Picture(FILM, {254: 1})), ""),
    "a pyramid in the film": ((Picture(FILM, {}, (SMALL, SMALL)),), ""),
    "the film in its thumbnail": ((Picture(THUMBNAIL, {254: 1}, (Picture(FILM),)),), ""),
    "a thumbnail alone": ((Picture(FILM, {254: 1}),), ""),
    "a thumbnail without a tag": (
        (Picture(FILM), Picture(LATERAL), Picture(LATERAL)),
        "the first of 3 pages is read",
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", FILES)
def test_the_film_is_the_first_page_that_is_a_full_picture(name: str, layout: str) -> None:
    pages, remark = FILES[name]
    order, big = LAYOUTS[layout]
    data = pages_of(*pages, order=order, big=big)
    assert np.array_equal(decode_film(data), FILM)
    assert np.array_equal(decode_mask(data), FILM.max() // 2 < FILM)
    assert pictures.left_out(data) == remark
    # The samples, Pillow's pixels and the strip.
    assert working_bytes(data) == 3 * FILM.size


def test_a_deep_color_film_behind_a_thumbnail_is_read() -> None:
    thumbnail = Image.fromarray(THUMBNAIL)
    film = Image.fromarray(np.dstack([FILM] * 3))
    both = saved(thumbnail, "TIFF", save_all=True, append_images=[film], tiffinfo={254: 1})
    assert np.array_equal(decode_film(both), FILM)
    # OpenCV reads this one, and only its first page.
    deep = tiff(np.dstack([FILM.astype(np.uint16) * 257] * 3), 2)
    (directory,) = struct.unpack_from("<I", deep, 4)
    (entries,) = struct.unpack_from("<H", deep, directory)
    reduced = bytearray(pages_of(SMALL))
    (first,) = struct.unpack_from("<I", reduced, 4)
    chained = bytearray(deep) + bytes(len(deep) % 2)
    # The thumbnail's numbers move by the film's length.
    shift = len(chained)
    for index in range(struct.unpack_from("<H", reduced, first)[0]):
        place = first + 2 + 12 * index
        if struct.unpack_from("<H", reduced, place)[0] == 273:
            (strip,) = struct.unpack_from("<I", reduced, place + 8)
            struct.pack_into("<I", reduced, place + 8, strip + shift)
    struct.pack_into("<I", reduced, len(reduced) - 4, directory)
    struct.pack_into("<I", chained, 4, first + shift)
    assert entries > 5
    assert np.array_equal(decode_film(bytes(chained + reduced)), FILM)


def test_a_chain_that_goes_in_a_circle_ends() -> None:
    data = bytearray(pages_of(SMALL, SMALL))
    (first,) = struct.unpack_from("<I", data, 4)
    place = data.rindex(bytes(4))
    struct.pack_into("<I", data, len(data) - 4, first)
    assert place
    assert np.array_equal(decode_film(bytes(data)), THUMBNAIL)
    assert tiff_pages.full_pages(bytes(data)) == 0


def test_strips_are_counted_on_the_page_that_is_read() -> None:
    many = Picture(FILM, {273: 8, 279: 8})
    data = bytearray(pages_of(SMALL, many))
    place = data.index(struct.pack("<HHI", 273, 4, 1), data.index(FILM.tobytes()) + FILM.size)
    struct.pack_into("<I", data, place + 4, MOST_PARTS + 1)
    with pytest.raises(ImageError, match=f"^too large: more than {MOST_PARTS} strips or tiles$"):
        decode_film(bytes(data))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_cut_file_of_pages_is_refused_or_decoded_whole(layout: str) -> None:
    order, big = LAYOUTS[layout]
    data = pages_of(SMALL, Picture(FILM), order=order, big=big)
    for length in range(0, len(data), 31):
        try:
            film = decode_film(data[:length])
        except ImageError as error:
            assert str(error).startswith(("truncated", "undecodable"))
        else:
            assert film.shape in (FILM.shape, THUMBNAIL.shape)


@pytest.mark.parametrize("place", [2**62, 2**63 + 5, 2**64 - 1])
def test_a_directory_far_beyond_the_file_is_a_truncated_file(place: int) -> None:
    data = b"II+\0" + struct.pack("<HHQ", 8, 0, place) + bytes(99)
    with pytest.raises(ImageError, match=r"^truncated$"):
        decode_film(data)
    assert pictures.left_out(data) == ""
