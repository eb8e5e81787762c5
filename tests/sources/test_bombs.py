"""Malicious archives: bombs, overlapping members, false directories. Each is refused by name."""

from __future__ import annotations

import io
import stat
import struct
import tracemalloc
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.errors import BadDataError
from jobs.sources import archive
from jobs.sources.archive import LocalZip
from jobs.sources.source import LARGEST_FILE
from jobs.sources.zip_member import LOCAL_HEADER, DamagedError, ZipMember
from tests.support.archives import write_zip

DIRECTORY, HEADER = b"PK\x01\x02", b"PK\x03\x04"
# Offset and type of the fields in an entry of the directory.
FLAGS, METHOD, CRC = (8, "<H"), (10, "<H"), (16, "<I")
COMPRESSED_SIZE, SIZE, OFFSET = (20, "<I"), (24, "<I"), (42, "<I")
MEGABYTE_OF_ZEROS = bytes(2**20)


def patch(path: Path, number: int, field: tuple[int, str], value: int) -> None:
    """Change one field of entry `number` of the directory."""
    content = bytearray(path.read_bytes())
    entry = -1
    for _ in range(number + 1):
        entry = content.index(DIRECTORY, entry + 1)
    offset, layout = field
    struct.pack_into(layout, content, entry + offset, value)
    path.write_bytes(content)


def write_zeros(path: Path, name: str, megabytes: int) -> Path:
    """Write a zip of a film and a member of zeros, which deflate to a thousandth of their size."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("images/good.png", b"film")
        with opened.open(name, "w") as member:
            for _ in range(megabytes):
                member.write(MEGABYTE_OF_ZEROS)
    return path


def test_a_bomb_that_declares_its_size_is_refused_and_other_members_are_read(
    tmp_path: Path,
) -> None:
    path = write_zeros(tmp_path / "films.zip", "images/bomb.png", LARGEST_FILE // 2**20 + 1)
    assert path.stat().st_size < 2**20
    source = LocalZip(path)
    for method in (source.size, source.read):
        with pytest.raises(BadDataError, match=rf"'images/bomb.png' declares .*{LARGEST_FILE}"):
            method("images/bomb.png")
    assert source.read("images/good.png") == b"film"
    source.close()


def test_a_bomb_that_declares_less_is_refused_in_little_memory(tmp_path: Path) -> None:
    path = write_zeros(tmp_path / "films.zip", "images/bomb.png", 200)
    patch(path, 1, SIZE, 1_500_000)
    words = r"'images/bomb.png' has more than the 1500000 bytes"
    assert peak_until_refused(path, "images/bomb.png", words) < 10 * 2**20


def peak_until_refused(path: Path, name: str, words: str) -> int:
    """The peak memory in bytes of reading a member that is refused with `words`."""
    source = LocalZip(path)
    tracemalloc.start()
    with pytest.raises(BadDataError, match=words):
        source.read(name)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    source.close()
    return peak


def deflated(content: bytes) -> bytes:
    """A raw deflate stream."""
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(content) + compressor.flush()


def test_bytes_after_a_deflate_stream_are_refused_in_little_memory(tmp_path: Path) -> None:
    """Sizes and CRC-32 are correct; 16 MiB of zeros follow the stream of a film of 4 bytes."""
    content = deflated(b"film") + MEGABYTE_OF_ZEROS * 16
    path = write_zip(tmp_path / "films.zip", {"images/a.png": content}, zipfile.ZIP_STORED)
    for field, value in ((METHOD, zipfile.ZIP_DEFLATED), (SIZE, 4), (CRC, zlib.crc32(b"film"))):
        patch(path, 0, field, value)
    words = r"'images/a\.png' has bytes after the end"
    assert peak_until_refused(path, "images/a.png", words) < 10 * 2**20


@pytest.mark.parametrize("cut", [0, 1, -2, -1], ids=["none", "early", "late", "at its end"])
def test_one_byte_after_a_deflate_stream_is_refused_however_the_chunks_are_cut(cut: int) -> None:
    data = deflated(b"film") + b"\0"
    member = ZipMember(0, 99, 4, len(data), zlib.crc32(b"film"), True, b"a")
    header = LOCAL_HEADER.pack(b"PK\3\4", 1, 0) + b"a"
    chunks = [chunk for chunk in (header, data[:cut], data[cut:]) if chunk]
    with pytest.raises(DamagedError, match="has bytes after the end"):
        list(member.unpack(iter(chunks)))
    without_the_byte = replace(member, compressed_size=len(data) - 1)
    assert b"".join(without_the_byte.unpack(iter([header, data]))) == b"film"


def test_more_bytes_than_deflate_can_hold_are_refused_on_opening(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "films.zip", {"images/bomb.png": b"film"})
    patch(path, 0, SIZE, 2**26)
    with pytest.raises(BadDataError, match=r"'images/bomb.png' declares 67108864 bytes.*bomb"):
        LocalZip(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_method_without_a_bound_on_its_ratio_is_refused(tmp_path: Path, method: int) -> None:
    path = write_zip(tmp_path / "films.zip", {"images/bomb.png": MEGABYTE_OF_ZEROS}, method)
    words = rf"'images/bomb.png' uses compression method {method}"
    with pytest.raises(BadDataError, match=words):
        LocalZip(path)


def test_members_at_the_same_offset_are_refused(tmp_path: Path) -> None:
    """Fifield, "A better zip bomb" (2019): many names for the same compressed bytes."""
    members = {f"images/{n}.png": bytes(1000) for n in range(3)}
    path = write_zip(tmp_path / "films.zip", members)
    patch(path, 2, OFFSET, 0)
    with pytest.raises(BadDataError, match="overlaps another member"):
        LocalZip(path)


def test_a_member_that_reaches_into_the_next_is_refused(tmp_path: Path) -> None:
    members = {"a.png": b"1" * 50, "b.png": b"2" * 50}
    path = write_zip(tmp_path / "films.zip", members, zipfile.ZIP_STORED)
    patch(path, 0, COMPRESSED_SIZE, 60)
    with pytest.raises(BadDataError, match=r"'a\.png' overlaps another member"):
        LocalZip(path)


def test_a_member_with_another_name_in_its_local_header_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "films.zip", {"images/a.png": b"film"})
    path.write_bytes(path.read_bytes().replace(b"images/a.png", b"images/b.png", 1))
    source = LocalZip(path)
    with pytest.raises(BadDataError, match=r"'images/a\.png' has another name"):
        source.read("images/a.png")
    source.close()


def test_a_member_without_a_local_header_at_its_offset_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "films.zip", {"images/a.png": b"film"})
    path.write_bytes(path.read_bytes().replace(HEADER, b"PK\x05\x04", 1))
    source = LocalZip(path)
    with pytest.raises(BadDataError, match=r"'images/a\.png' is not at the offset"):
        source.read("images/a.png")
    source.close()


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFSOCK])
def test_links_devices_and_pipes_are_refused(tmp_path: Path, kind: int) -> None:
    info = zipfile.ZipInfo("images/a.png")
    info.external_attr = (kind | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "films.zip", "w") as opened:
        opened.writestr(info, "/etc/passwd")
    with pytest.raises(BadDataError, match=r"'images/a\.png' is a link or a device"):
        LocalZip(tmp_path / "films.zip")


@pytest.mark.parametrize("flag", [0x1, 0x40], ids=["zipcrypto", "strong"])
def test_every_encryption_is_refused(tmp_path: Path, flag: int) -> None:
    path = write_zip(tmp_path / "films.zip", {"images/a.png": b"film"})
    patch(path, 0, FLAGS, flag)
    with pytest.raises(BadDataError, match=r"'images/a\.png' is encrypted"):
        LocalZip(path)


def test_a_directory_too_large_for_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "LARGEST_DIRECTORY", 10_000)
    monkeypatch.setattr(archive, "TAIL", 1_000)
    path = write_zip(tmp_path / "films.zip", {f"{n:0100}.png": b"" for n in range(200)})
    with pytest.raises(BadDataError, match=r"its directory has \d+ bytes"):
        LocalZip(path)


class Unseekable(io.BytesIO):
    """A stream without seek: zipfile then writes the sizes after the members."""

    def seekable(self) -> bool:
        return False

    def seek(self, *_: int) -> int:
        raise io.UnsupportedOperation

    def tell(self) -> int:
        raise io.UnsupportedOperation


def test_valid_archives_with_rare_features_are_read(tmp_path: Path) -> None:
    """Sizes after the members, zip64 fields, a comment, bytes before the archive."""
    stream = Unseekable()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("images/a.png", b"film" * 100)
        with opened.open("images/Röntgen.png", "w", force_zip64=True) as member:
            member.write(b"another" * 100)
        opened.writestr("images/empty.png", b"")
        opened.comment = b"from the archive room" * 100
    path = tmp_path / "films.zip"
    path.write_bytes(b"#!/bin/sh\n" + stream.getvalue())
    source = LocalZip(path)
    assert {name: source.read(name) for name in source.names()} == {
        "images/a.png": b"film" * 100,
        "images/Röntgen.png": b"another" * 100,
        "images/empty.png": b"",
    }
    source.close()
