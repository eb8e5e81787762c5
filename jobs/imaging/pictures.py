"""Files that hold several pictures: the first is the film, or the mask."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator

from jobs.imaging import formats, tiff_pages

log = logging.getLogger(__name__)

# Of a GIF: the logical screen's end, the kinds of blocks, and the flag of a table of colors.
SCREEN, EXTENSION, PICTURE, COLORS = 13, 0x21, 0x2C, 0x80
# Blocks of a GIF that are looked at; one of 128 MiB has half a million.
MOST_BLOCKS = 2_000_000
# Bytes before the pixels of a JPEG that may say that other pictures follow (MPO).
INDEX = 2**18


def film_alone(data: bytes) -> bytes:
    """The file with the film as what decoders read of it; the same object where it is already.

    Of a TIFF see `tiff_pages`. A GIF comes without what precedes its first picture, comments and
    transparency: Pillow takes a time for comments that grows with the square of their length.
    """
    kind = formats.kind_of(data)
    if kind == "TIFF":
        return tiff_pages.film_first(data)
    if kind == "GIF":
        screen = _end_of_colors(data, 10, SCREEN)
        first = next(_gif_pictures(data), screen)
        return data if first == screen else data[:screen] + data[first:]
    return data


def left_out(data: bytes) -> str:
    """What is said of a file with several pictures: "the first of 3 pages is read"; else ""."""
    kind = formats.kind_of(data)
    if kind == "TIFF":
        pages = tiff_pages.full_pages(data)
        return f"the first of {pages} pages is read" if pages > 1 else ""
    pictures: Iterator[object] = iter(())
    if kind == "GIF":
        pictures = _gif_pictures(data)
    elif kind == "WEBP":
        pictures = (place for name, place in _webp_chunks(data) if name == b"ANMF")
    elif kind == "JPEG" and b"MPF\0" in data[:INDEX]:
        pictures = iter("12")
    several = next(itertools.islice(pictures, 1, None), None) is not None
    return "the first of several pictures is read" if several else ""


def log_left_out(name: str, data: bytes) -> None:
    """Log a warning that names the film where its file holds several pictures."""
    if remark := left_out(data):
        log.warning("%s: %s", name, remark)


def _gif_pictures(data: bytes) -> Iterator[int]:
    """Where each picture of a GIF starts, as far as MOST_BLOCKS."""
    position, blocks = _end_of_colors(data, 10, SCREEN), 0
    while position < len(data) and data[position] in (EXTENSION, PICTURE):
        if data[position] == PICTURE:
            yield position
            # A byte follows the colors: the bits of the first code.
            position = 1 + _end_of_colors(data, position + 9, position + 10)
        else:
            position += 2
        while position < len(data) and data[position]:
            position, blocks = position + 1 + data[position], blocks + 1
            if blocks > MOST_BLOCKS:
                return
        position += 1


def _end_of_colors(data: bytes, flags: int, start: int) -> int:
    """Where a table of colors from `start` on ends, if the byte at `flags` says there is one."""
    has_colors = flags < len(data) and data[flags] & COLORS
    return start + (3 * 2 ** ((data[flags] & 7) + 1) if has_colors else 0)


def _webp_chunks(data: bytes) -> Iterator[tuple[bytes, int]]:
    """The name and place of each chunk of a WebP: its name (4 bytes), its length (4), its body."""
    position = 12
    for _ in range(MOST_BLOCKS):
        if position + 8 > len(data):
            return
        yield data[position : position + 4], position
        length = int.from_bytes(data[position + 4 : position + 8], "little")
        position += 8 + length + length % 2
