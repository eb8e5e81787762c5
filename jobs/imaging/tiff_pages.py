"""The pages of a TIFF: the film is the first that is no thumbnail and no transparency mask.

Where every page is marked as a thumbnail, as by writers that mark all pages alike, it is the
largest.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator
from dataclasses import dataclass

# By byte order and version; TIFF is 42, BigTIFF 43.
ORDERS = {b"II": "<", b"MM": ">"}
# Where the first directory's offset is, and the kinds of an offset, of the number of entries and of
# the number of an entry's values.
VERSIONS = {42: (4, "I", "H", "I"), 43: (8, "Q", "Q", "Q")}
NEW_SUBFILE_TYPE, SUBFILE_TYPE, SUB_DIRECTORIES = 254, 255, 330
WIDTH, HEIGHT = 256, 257
# Bits of NewSubfileType, and the value of the older SubfileType.
REDUCED, TRANSPARENCY, OLD_REDUCED = 1, 4, 2
# Kinds of values by TIFF's types: BYTE, SHORT, LONG, IFD, LONG8, IFD8.
TYPES = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
# Directories and their entries that are looked at; files of scanners have some ten pages.
MOST_PAGES, MOST_ENTRIES = 1000, 100_000


@dataclass(frozen=True)
class Page:
    """A directory: its place in the file, its pixels, and whether they are a full picture."""

    offset: int
    pixels: int
    is_full: bool


def film_first(data: bytes) -> bytes:
    """The TIFF with the film's page as its first, for decoders that read only that.

    The same object where it is first already.
    """
    layout = _Layout.of(data)
    if layout is None:
        return data
    pages = layout.pages()
    first = next(pages, None)
    if first is None or first.is_full:
        return data
    others = list(pages)
    largest = max((first, *others), key=lambda page: page.pixels)
    film = next((page for page in others if page.is_full), largest)
    if film is first:
        return data
    end = layout.start + struct.calcsize(layout.offset)
    place = struct.pack(layout.order + layout.offset, film.offset)
    return b"".join((memoryview(data)[: layout.start], place, memoryview(data)[end:]))


def full_pages(data: bytes) -> int:
    """How many pages are full pictures, at most MOST_PAGES; 0 for what is no TIFF."""
    layout = _Layout.of(data)
    return sum(page.is_full for page in layout.pages()) if layout else 0


def ends_early(data: bytes) -> bool:
    """Whether the first directory is missing or cut.

    Most programs write it after the pixels, so that a truncated file lacks it.
    """
    layout = _Layout.of(data)
    try:
        if layout is None:
            return len(data) < 16
        directory = layout.first()
        return directory + layout.size(directory) > len(data)
    except struct.error:
        return True


@dataclass(frozen=True)
class _Layout:
    """A file with the kinds of its numbers, as `struct` names them."""

    data: bytes
    order: str
    start: int
    offset: str
    number: str
    count: str

    @classmethod
    def of(cls, data: bytes) -> _Layout | None:
        order = ORDERS.get(data[:2])
        if order is None or len(data) < 8:
            return None
        (version,) = struct.unpack_from(f"{order}H", data, 2)
        return cls(data, order, *VERSIONS[version]) if version in VERSIONS else None

    def first(self) -> int:
        return self._read(self.offset, self.start)

    def size(self, directory: int) -> int:
        """Bytes of a directory without the next one's offset."""
        entries = self._read(self.number, directory)
        return struct.calcsize(f"{self.order}{self.number}") + entries * self._entry_size

    def pages(self) -> Iterator[Page]:
        """The chained directories in order, then those that they hold (SubIFDs); each once."""
        chained = list(itertools.islice(self._chain(), MOST_PAGES))
        yield from (page for page, _ in chained)
        seen, entries = {page.offset for page, _ in chained}, 0
        for offset in itertools.chain.from_iterable(held for _, held in chained):
            if offset in seen or len(seen) == MOST_PAGES:
                continue
            seen.add(offset)
            try:
                entries += self._read(self.number, offset)
                if entries > MOST_ENTRIES:
                    return
                yield self._page(offset)[0]
            except struct.error:
                return

    def _chain(self) -> Iterator[tuple[Page, list[int]]]:
        seen: set[int] = set()
        entries = 0
        try:
            offset = self.first()
            while offset and offset not in seen:
                seen.add(offset)
                entries += self._read(self.number, offset)
                if entries > MOST_ENTRIES:
                    return
                yield self._page(offset)
                offset = self._read(self.offset, offset + self.size(offset))
        except struct.error:
            return

    def _page(self, directory: int) -> tuple[Page, list[int]]:
        """The page of a directory, and the offsets of those that it holds."""
        first = directory + struct.calcsize(f"{self.order}{self.number}")
        entries = min(self._read(self.number, directory), MOST_ENTRIES)
        values: dict[int, list[int]] = {}
        for place in range(first, first + entries * self._entry_size, self._entry_size):
            tag = self._read("H", place)
            if tag in (NEW_SUBFILE_TYPE, SUBFILE_TYPE, SUB_DIRECTORIES, WIDTH, HEIGHT):
                values[tag] = self._values(place)
        kind = values.get(NEW_SUBFILE_TYPE, [0])[0]
        is_small = bool(kind & (REDUCED | TRANSPARENCY))
        if NEW_SUBFILE_TYPE not in values:
            is_small = values.get(SUBFILE_TYPE) == [OLD_REDUCED]
        pixels = values.get(WIDTH, [0])[0] * values.get(HEIGHT, [0])[0]
        return Page(directory, pixels, not is_small), values.get(SUB_DIRECTORIES, [])

    def _values(self, place: int) -> list[int]:
        """An entry's values, in the entry itself where they fit; [0] of another type."""
        kind = TYPES.get(self._read("H", place + 2))
        count = min(self._read(self.count, place + 4), MOST_PAGES)
        if kind is None or not count:
            return [0]
        value = place + 4 + struct.calcsize(f"{self.order}{self.count}")
        if count * struct.calcsize(f"={kind}") > struct.calcsize(f"={self.offset}"):
            value = self._read(self.offset, value)
        return self._read_all(f"{count}{kind}", value)

    @property
    def _entry_size(self) -> int:
        return 4 + 2 * struct.calcsize(f"={self.count}")

    def _read(self, kind: str, place: int) -> int:
        return self._read_all(kind, place)[0]

    def _read_all(self, kinds: str, place: int) -> list[int]:
        """Numbers from a place on; struct.error if they are not all in the file."""
        if place > len(self.data):
            raise struct.error("beyond the end")
        return list(struct.unpack_from(self.order + kinds, self.data, place))
