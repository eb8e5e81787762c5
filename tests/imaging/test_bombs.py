"""Archives made to harm: bombs, bytes used twice, directories that lie. Each is refused by name."""

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
from jobs.sources.zip_member import LOCAL_HEADER, DamagedError, Member

DIRECTORY, HEADER = b"PK\x01\x02", b"PK\x03\x04"
# Fields of a directory's entry.
METHOD, CRC, PACKED, DECLARED, OFFSET = (10, "<H"), (16, "<I"), (20, "<I"), (24, "<I"), (42, "<I")
ZEROS = bytes(2**20)


def write(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as opened:
        for name, content in members.items():
            opened.writestr(name, content)
    return path


def patch(path: Path, number: int, field: tuple[int, str], value: int) -> None:
    """Change one field of the directory's entry `number`."""
    content = bytearray(path.read_bytes())
    place = -1
    for _ in range(number + 1):
        place = content.index(DIRECTORY, place + 1)
    struct.pack_into(field[1], content, place + field[0], value)
    path.write_bytes(content)


def write_zeros(path: Path, name: str, megabytes: int) -> Path:
    """A film and a member of zeros, a thousandth of its size when packed."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("images/good.png", b"film")
        with opened.open(name, "w") as member:
            for _ in range(megabytes):
                member.write(ZEROS)
    return path


def test_a_bomb_that_declares_its_size_is_refused_by_name_and_spoils_no_other(
    tmp_path: Path,
) -> None:
    path = write_zeros(tmp_path / "films.zip", "images/bomb.png", LARGEST_FILE // 2**20 + 1)
    assert path.stat().st_size < 2**20
    source = LocalZip(path)
    for refused in (source.size, source.read):
        with pytest.raises(BadDataError, match=rf"'images/bomb.png' declares .*{LARGEST_FILE}"):
            refused("images/bomb.png")
    assert source.read("images/good.png") == b"film"
    source.close()


def test_a_bomb_that_declares_less_is_stopped_before_it_fills_the_memory(tmp_path: Path) -> None:
    path = write_zeros(tmp_path / "films.zip", "images/bomb.png", 200)
    patch(path, 1, DECLARED, 1_500_000)
    words = r"'images/bomb.png' holds more than the 1500000 bytes"
    assert peak_until_refused(path, "images/bomb.png", words) < 10 * 2**20


def peak_until_refused(path: Path, name: str, words: str) -> int:
    """The bytes of memory that reading a member takes before it is refused with `words`."""
    source = LocalZip(path)
    tracemalloc.start()
    with pytest.raises(BadDataError, match=words):
        source.read(name)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    source.close()
    return peak


def deflated(content: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(content) + packer.flush()


def test_bytes_behind_a_deflate_stream_are_refused_before_they_fill_the_memory(
    tmp_path: Path,
) -> None:
    """Sizes and the CRC-32 are right; the member is a film of 4 bytes and 16 MiB of nothing."""
    path = write(tmp_path / "films.zip", {"images/a.png": deflated(b"film") + ZEROS * 16}, 0)
    for field, value in ((METHOD, 8), (DECLARED, 4), (CRC, zlib.crc32(b"film"))):
        patch(path, 0, field, value)
    words = r"'images/a\.png' goes on behind the end"
    assert peak_until_refused(path, "images/a.png", words) < 10 * 2**20


@pytest.mark.parametrize("cut", [0, 1, -2, -1], ids=["none", "early", "late", "at its end"])
def test_a_single_byte_behind_a_deflate_stream_is_refused_wherever_chunks_are_cut(cut: int) -> None:
    data = deflated(b"film") + b"\0"
    member = Member(0, 99, 4, len(data), zlib.crc32(b"film"), True, b"a")
    header = LOCAL_HEADER.pack(b"PK\3\4", 1, 0) + b"a"
    with pytest.raises(DamagedError, match="goes on behind the end"):
        list(member.unpack(iter([header, *filter(None, (data[:cut], data[cut:]))])))
    assert b"".join(replace(member, packed=len(data) - 1).unpack(iter([header, data]))) == b"film"


def test_more_than_deflate_can_hold_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "films.zip", {"images/bomb.png": b"film"})
    patch(path, 0, DECLARED, 2**26)
    with pytest.raises(BadDataError, match=r"'images/bomb.png' declares 67108864 bytes.*bomb"):
        LocalZip(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_method_that_swells_without_bound_is_refused(tmp_path: Path, method: int) -> None:
    path = write(tmp_path / "films.zip", {"images/bomb.png": ZEROS}, method)
    with pytest.raises(BadDataError, match=rf"'images/bomb.png' is compressed by method {method}"):
        LocalZip(path)


def test_bytes_that_two_members_share_are_refused(tmp_path: Path) -> None:
    """Fifield's "A better zip bomb" (2019): one kernel, many names."""
    members = {f"images/{n}.png": bytes(1000) for n in range(3)}
    path = write(tmp_path / "films.zip", members)
    patch(path, 2, OFFSET, 0)
    with pytest.raises(BadDataError, match="shares bytes with another member"):
        LocalZip(path)


def test_a_member_that_reaches_into_the_next_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "films.zip", {"a.png": b"1" * 50, "b.png": b"2" * 50}, 0)
    patch(path, 0, PACKED, 60)
    with pytest.raises(BadDataError, match=r"'a\.png' shares bytes"):
        LocalZip(path)


def test_a_member_whose_own_header_bears_another_name_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "films.zip", {"images/a.png": b"film"})
    path.write_bytes(path.read_bytes().replace(b"images/a.png", b"images/b.png", 1))
    source = LocalZip(path)
    with pytest.raises(BadDataError, match=r"'images/a\.png' bears another name"):
        source.read("images/a.png")
    source.close()


def test_a_member_that_is_not_where_the_directory_says_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "films.zip", {"images/a.png": b"film"})
    path.write_bytes(path.read_bytes().replace(HEADER, b"PK\x05\x04", 1))
    source = LocalZip(path)
    with pytest.raises(BadDataError, match=r"'images/a\.png' is not where"):
        source.read("images/a.png")
    source.close()


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFSOCK])
def test_what_is_no_file_is_refused(tmp_path: Path, kind: int) -> None:
    info = zipfile.ZipInfo("images/a.png")
    info.external_attr = (kind | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "films.zip", "w") as opened:
        opened.writestr(info, "/etc/passwd")
    with pytest.raises(BadDataError, match=r"'images/a\.png' is a link or a device"):
        LocalZip(tmp_path / "films.zip")


@pytest.mark.parametrize("flag", [0x1, 0x40], ids=["zipcrypto", "strong"])
def test_every_encryption_is_refused(tmp_path: Path, flag: int) -> None:
    path = write(tmp_path / "films.zip", {"images/a.png": b"film"})
    patch(path, 0, (8, "<H"), flag)
    with pytest.raises(BadDataError, match=r"'images/a\.png' is encrypted"):
        LocalZip(path)


def test_a_directory_too_large_to_hold_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "LARGEST_DIRECTORY", 10_000)
    monkeypatch.setattr(archive, "TAIL", 1_000)
    path = write(tmp_path / "films.zip", {f"{n:0100}.png": b"" for n in range(200)})
    with pytest.raises(BadDataError, match=r"its directory has \d+ bytes"):
        LocalZip(path)


class Unseekable(io.BytesIO):
    """What a zip is streamed to, so that sizes stand behind the members."""

    def seekable(self) -> bool:
        return False

    def seek(self, *_: int) -> int:
        raise io.UnsupportedOperation

    def tell(self) -> int:
        raise io.UnsupportedOperation


def test_what_honest_archivers_write_is_read(tmp_path: Path) -> None:
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
