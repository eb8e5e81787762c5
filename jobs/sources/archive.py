"""A zip archive, local or remote: its directory is read first, then one member at a time.

Nothing is unpacked to disk; memory holds only the members that are being read. Only stored and
deflated members are read: other methods have no bound on the bytes that one byte expands to.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from jobs.errors import BadDataError
from jobs.sources.byte_ranges import ByteRanges, FileRanges, join_chunks
from jobs.sources.file_kinds import FIRST_PART, HEAD, JOIN, ZIP, FileKind, kind_of
from jobs.sources.file_names import IMAGES, ending_of
from jobs.sources.member_names import member_names
from jobs.sources.source import LARGEST_FILE
from jobs.sources.zip_member import METHODS, DamagedError, ZipMember
from jobs.storage.verified_read import read_checked

# Bytes; about half a million members.
LARGEST_DIRECTORY = 2**26
# The most bytes that one byte of a deflate stream expands to.
LARGEST_RATIO = 1032
# Bytes at the end of the archive that are read first: the directory of about 2,000 members.
TAIL = 2**18
ZIP_AGAIN = "download or zip it again"

# What zipfile raises on a damaged directory.
DIRECTORY_ERRORS = (
    zipfile.BadZipFile,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    NotImplementedError,
)


class ZipSource:
    """The members of one zip, read by any number of threads; each member's CRC-32 is tested.

    Raises BadDataError with the member's name for one that lies outside the archive, is a link or a
    device, is encrypted, is in the archive twice, overlaps another, declares more bytes than its
    compressed bytes can hold, or uses a compression method other than store and deflate; and, with
    the kind of file that it is, for a file that is no zip or a zip of archives or DICOM alone.
    """

    def __init__(self, file: ByteRanges) -> None:
        self._file = file
        try:
            self._members = self._read_directory()
            self._check_content()
        except BaseException:
            file.close()
            raise

    def identity(self) -> dict[str, str]:
        """A hash of the members' names, sizes and CRC-32s, from the directory alone.

        A copy of the archive, or the same files zipped again, is the same source.
        """
        members = sorted(self._members.items())
        lines = (f"{name}\0{member.size}\0{member.crc:08x}\n" for name, member in members)
        return {"sha256": hashlib.sha256("".join(lines).encode()).hexdigest()}

    def names(self) -> list[str]:
        return sorted(self._members)

    def size(self, name: str) -> int:
        """The bytes that the member declares; BadDataError above LARGEST_FILE."""
        size = self._members[name].size
        if size > LARGEST_FILE:
            problem = f"declares {size} bytes, over {LARGEST_FILE}"
            raise self._refusal(name, problem, "leave it out of the archive")
        return size

    def read(self, name: str) -> bytes:
        """The member's content, tested; a damaged member is read once more.

        Raises BadDataError if the same damaged bytes come again, DamagedTransferError if others do.
        """
        self.size(name)

        def check(received: tuple[bytes, str, int]) -> bytes:
            content, problem, _ = received
            if problem:
                raise self._refusal(name, problem, ZIP_AGAIN)
            return content

        label = f"{self._file.name}: member {name!r}"
        return read_checked(label, lambda: self._receive(name), check)

    def _receive(self, name: str) -> tuple[bytes, str, int]:
        """(content, "", 0), or of a damaged member (b"", what is wrong, CRC-32 of its range)."""
        member = self._members[name]
        chunks = _Summed(self._file.stream(member.start, member.stop))
        try:
            return join_chunks(_unpack(member, chunks)), "", 0
        except DamagedError as error:
            with contextlib.suppress(OSError):
                _discard(chunks)
            return b"", str(error), chunks.checksum

    def test(self) -> None:
        """Read every member, of any size, and discard it; DamagedError for a damaged member."""
        for name in self._members:
            member = self._members[name]
            _discard(_unpack(member, self._file.stream(member.start, member.stop)))

    def close(self) -> None:
        self._file.close()

    def _read_directory(self) -> dict[str, ZipMember]:
        try:
            with zipfile.ZipFile(_DirectoryReader(self._file)) as archive:
                infos, directory_start = archive.infolist(), archive.start_dir
                names = member_names(infos, self._file.name)
        except UnicodeDecodeError:
            raise BadDataError(
                f"{self._file.name} has a name that is marked as UTF-8 and is not: {ZIP_AGAIN}"
            ) from None
        except DIRECTORY_ERRORS as error:
            raise self._not_a_zip(error) from None
        # In a Zip64 entry 0xFFFF says that the number is elsewhere.
        if any(info.volume not in (0, 0xFFFF) for info in infos):
            raise BadDataError(f"{self._file.name} is a split zip or the last part of one: {JOIN}")
        return self._check_members(zip(names, infos, strict=True), directory_start)

    def _not_a_zip(self, error: Exception) -> BadDataError:
        kind = self._kind()
        if kind and kind != ZIP:
            return self._wrong_kind(kind)
        return BadDataError(
            f"{self._file.name} is not a zip or is truncated ({error}): {ZIP_AGAIN}; if it is a "
            f"part of a split zip, {JOIN}"
        )

    def _check_members(
        self, named_infos: Iterable[tuple[str, zipfile.ZipInfo]], directory_start: int
    ) -> dict[str, ZipMember]:
        """The members by name, without folders; each must end before the next one starts."""
        members: dict[str, ZipMember] = {}
        limit = directory_start
        # From the last member to the first, since a range is limited by the start of the next one.
        for path, info in sorted(named_infos, key=lambda named: -named[1].header_offset):
            self._check_entry(path, info)
            member = ZipMember.of(info, limit)
            if member.start < 0 or member.least_stop > limit:
                is_before = member.start < 0
                problem = "lies before the file's start" if is_before else "overlaps another member"
                raise self._refusal(path, problem, f"{ZIP_AGAIN}; if the zip was split, {JOIN}")
            limit = member.start
            if path.endswith("/"):
                continue
            name = "/".join(part for part in path.split("/") if part not in ("", "."))
            if name in members:
                raise self._refusal(name, "is in the archive twice", "zip it again")
            members[name] = member
        if limit and members:
            self._check_front()
        return members

    def _check_front(self) -> None:
        """Refuse a zip behind another archive: the last file of a tar has its directory there."""
        kind = self._kind()
        if kind and kind.sort == "archive" and kind not in (ZIP, FIRST_PART):
            raise self._wrong_kind(kind)

    def _kind(self) -> FileKind | None:
        return kind_of(join_chunks(self._file.stream(0, min(HEAD, self._file.size))))

    def _wrong_kind(self, kind: FileKind) -> BadDataError:
        return BadDataError(f"{self._file.name} is not a zip but {kind.what}: {kind.remedy}")

    def _check_content(self) -> None:
        """Refuse a zip without any image whose largest member is an archive or DICOM."""
        if not self._members or any(ending_of(name) in IMAGES for name in self._members):
            return
        name = max(sorted(self._members), key=lambda name: self._members[name].size)
        kind = self._kind_of_member(name)
        if kind and kind.sort in ("archive", "dicom"):
            raise BadDataError(
                f"{self._file.name} holds no images; its member {name!r} is {kind.what}: "
                f"{kind.remedy}"
            )

    def _kind_of_member(self, name: str) -> FileKind | None:
        head, member = b"", self._members[name]
        # A damaged member is refused when it is read.
        with contextlib.suppress(DamagedError):
            for chunk in _unpack(member, self._file.stream(member.start, member.stop)):
                head += chunk
                if len(head) >= HEAD:
                    break
        return kind_of(head[:HEAD])

    def _check_entry(self, name: str, info: zipfile.ZipInfo) -> None:
        # Also where "\" is part of the name: on Windows it would separate.
        path = name.replace("\\", "/")
        if path.startswith("/") or re.match(r"[A-Za-z]:", path) or "\0" in path:
            raise self._refusal(path, "is not a relative path", "zip a folder without full paths")
        if ".." in path.split("/"):
            raise self._refusal(path, "lies outside the archive", "zip a folder without '..'")
        # The upper 16 bits are the Unix mode, 0 if the archiver does not write it.
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise self._refusal(name, "is a link or a device", "zip the file itself instead")
        # Bit 0: traditional encryption; bit 6: strong encryption (APPNOTE 4.4.4).
        if info.flag_bits & 0x41:
            raise self._refusal(name, "is encrypted", "zip it again without a password")
        if info.compress_type not in METHODS:
            problem = f"uses compression method {info.compress_type}"
            raise self._refusal(name, problem, "zip it again with deflate")
        if info.file_size > info.compress_size * LARGEST_RATIO:
            problem = f"declares {info.file_size} bytes in {info.compress_size} compressed bytes"
            raise self._refusal(name, problem, "a decompression bomb or damaged: leave it out")

    def _refusal(self, name: str, problem: str, remedy: str) -> BadDataError:
        return BadDataError(f"{self._file.name}: member {name!r} {problem}: {remedy}")


class LocalZip(ZipSource):
    """A zip on this machine; NotFoundError or AccessError if it cannot be opened."""

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(FileRanges(path))


class _DirectoryReader:
    """The file object from which zipfile reads the directory; the last TAIL bytes are in memory.

    For most archives the tail holds the whole directory, so that it takes one request.
    """

    def __init__(self, file: ByteRanges) -> None:
        self._file = file
        self._position = 0
        self._tail_start = max(0, file.size - TAIL)
        self._tail = join_chunks(file.stream(self._tail_start, file.size))

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = 0, /) -> int:
        # os.SEEK_SET, SEEK_CUR and SEEK_END are 0, 1 and 2.
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
        return join_chunks(self._file.stream(start, end))

    def close(self) -> None:
        pass


class _Summed:
    """Chunks, with the CRC-32 of those that were taken."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self.checksum = 0

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        chunk = next(self._chunks)
        self.checksum = zlib.crc32(chunk, self.checksum)
        return chunk


def _unpack(member: ZipMember, chunks: Iterator[bytes]) -> Iterator[bytes]:
    try:
        yield from member.unpack(chunks)
        # A connection can be used again only after its response is read to the end.
        _discard(chunks)
    except OSError as error:
        raise DamagedError(f"cannot be read ({error.strerror})") from None


def _discard(chunks: Iterator[bytes]) -> None:
    for _ in chunks:
        pass
