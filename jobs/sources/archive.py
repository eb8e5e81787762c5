"""A zip archive, wherever it lies: its directory is read first, then each member by itself.

Nothing is unpacked to disk, and no more than the members under way are in memory. Only stored and
deflated members are read: other methods have no bound on how far a byte can swell.
"""

from __future__ import annotations

import hashlib
import logging
import re
import stat
import struct
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from jobs.errors import BadDataError
from jobs.sources.byte_ranges import Extents, FileExtents, join
from jobs.sources.source import LARGEST_FILE
from jobs.sources.zip_member import METHODS, DamagedError, Member

log = logging.getLogger(__name__)

LARGEST_DIRECTORY = 2**26  # bytes, of about half a million members
MOST_INFLATED = 1032  # the bytes that a byte of deflate can stand for
TAIL = 2**18  # bytes fetched first: the directory of about 2,000 members
AGAIN = "download or zip it again"

DAMAGE = (
    zipfile.BadZipFile,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    NotImplementedError,
)


class ZipSource:
    """The members of one zip, read by any number of threads, each with its CRC-32 tested.

    Raises BadDataError, naming the member, for one that climbs out of the archive, is a link or a
    device, is encrypted, stands twice, shares bytes with another, declares more than its packed
    bytes can hold or is compressed by a method not known here.
    """

    def __init__(self, file: Extents) -> None:
        self._file = file
        try:
            self._members = self._read_directory()
        except BaseException:
            file.close()
            raise

    def identity(self) -> dict[str, str]:
        """A hash of the members' names, sizes and CRC-32s, from the directory alone.

        The same files in a zip that lies elsewhere or was packed anew are the same source.
        """
        members = sorted(self._members.items())
        lines = (f"{name}\0{member.size}\0{member.crc:08x}\n" for name, member in members)
        return {"sha256": hashlib.sha256("".join(lines).encode()).hexdigest()}

    def names(self) -> list[str]:
        return sorted(self._members)

    def size(self, name: str) -> int:
        """The bytes that the member declares; BadDataError where they are over LARGEST_FILE."""
        declared = self._members[name].size
        if declared > LARGEST_FILE:
            size = f"declares {declared} bytes, over {LARGEST_FILE}"
            raise self._refusal(name, size, "leave it out of the archive")
        return declared

    def read(self, name: str) -> bytes:
        """The member's bytes, inflated and tested; once more where they were damaged on the way."""
        self.size(name)
        try:
            return join(self._unpack(name))
        except DamagedError as error:
            log.warning("%s: member %r %s: it is read again", self._file.name, name, error)
        try:
            return join(self._unpack(name))
        except DamagedError as error:
            raise self._refusal(name, str(error), AGAIN) from None

    def test(self) -> None:
        """Read every member, of any size, and keep none; DamagedError for the first damaged one."""
        for name in self._members:
            for _ in self._unpack(name):
                pass

    def close(self) -> None:
        self._file.close()

    def _unpack(self, name: str) -> Iterator[bytes]:
        member = self._members[name]
        extent = self._file.stream(member.start, member.stop)
        try:
            yield from member.unpack(extent)
            for _ in extent:  # read to its end, so that the connection can be used again
                pass
        except OSError as error:
            raise DamagedError(f"cannot be read ({error.strerror})") from None

    def _read_directory(self) -> dict[str, Member]:
        try:
            with zipfile.ZipFile(_Window(self._file)) as archive:
                infos, end = archive.infolist(), archive.start_dir
        except DAMAGE as error:
            raise BadDataError(
                f"{self._file.name} is not a zip or is cut short ({error}): {AGAIN}"
            ) from None
        return self._checked(infos, end)

    def _checked(self, infos: Iterable[zipfile.ZipInfo], end: int) -> dict[str, Member]:
        """Each member by its name; `end` is where the members end and the directory starts."""
        members: dict[str, Member] = {}
        limit = end
        for info in sorted(infos, key=lambda info: info.header_offset, reverse=True):
            path = info.orig_filename.replace("\\", "/")
            self._check(path, info)
            member = Member.of(info, limit)
            if member.least_stop > limit:
                raise self._refusal(path, "shares bytes with another member", AGAIN)
            limit = member.start
            name = "/".join(part for part in path.split("/") if part not in ("", "."))
            if not path.endswith("/") and members.setdefault(name, member) is not member:
                raise self._refusal(name, "stands twice in the archive", "zip it again")
        return members

    def _check(self, name: str, info: zipfile.ZipInfo) -> None:
        if name.startswith("/") or re.match(r"[A-Za-z]:", name) or "\0" in name:
            raise self._refusal(name, "is not a relative path", "zip a folder without full paths")
        if ".." in name.split("/"):
            raise self._refusal(name, "climbs out of the archive", "zip a folder without '..'")
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise self._refusal(name, "is a link or a device", "zip the file itself in its place")
        if info.flag_bits & 0x41:
            raise self._refusal(name, "is encrypted", "zip it again without a password")
        if info.compress_type not in METHODS:
            method = f"is compressed by method {info.compress_type}"
            raise self._refusal(name, method, "zip it again with deflate")
        if info.file_size > info.compress_size * MOST_INFLATED:
            size = f"declares {info.file_size} bytes, which {info.compress_size} cannot hold"
            raise self._refusal(name, size, "it is a decompression bomb or damaged: leave it out")

    def _refusal(self, name: str, problem: str, remedy: str) -> BadDataError:
        return BadDataError(f"{self._file.name}: member {name!r} {problem}: {remedy}")


class LocalZip(ZipSource):
    """A zip on this machine; NotFoundError or AccessError where it cannot be opened."""

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(FileExtents(path))


class _Window:
    """The archive as zipfile reads its directory from it: most often all of it is in the tail."""

    def __init__(self, file: Extents) -> None:
        self._file = file
        self._position = 0
        self._tail_start = max(0, file.size - TAIL)
        self._tail = join(file.stream(self._tail_start, file.size))

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = 0, /) -> int:
        position = offset + (0, self._position, self._file.size)[whence]
        if position < 0:
            raise OSError("a position before the start")
        self._position = position
        return position

    def read(self, count: int = -1, /) -> bytes:
        end = self._file.size if count < 0 else min(self._file.size, self._position + count)
        start, self._position = self._position, max(self._position, end)
        if start >= self._tail_start:
            return self._tail[start - self._tail_start : end - self._tail_start]
        if end - start > LARGEST_DIRECTORY:
            raise zipfile.BadZipFile(f"its directory has {end - start} bytes")
        return join(self._file.stream(start, end))

    def close(self) -> None:
        pass
