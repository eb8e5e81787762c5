"""What is given in place of a zip is refused as what it is, with what to do."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.errors import BadDataError
from jobs.sources import retries
from jobs.sources.archive import LocalZip
from jobs.sources.web import open_url
from tests.support.archives import RawMember, raw_zip, write_zip, zipped
from tests.support.range_server import RangeServer, range_server

FILMS = {f"images/{n}.png": b"film" * 99 for n in range(9)}


def tarred(members: dict[str, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def without_magic(tar: bytes) -> bytes:
    """The tar of one file as before POSIX: "ustar" and what follows are zero, the sum is right."""
    header = bytearray(tar[:512])
    header[257:] = bytes(255)
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    return bytes(header) + tar[512:]


TAR = tarred(FILMS)
# The first bytes are from the formats' specifications.
OTHERS = {
    "tar": (TAR, "a tar archive"),
    "GNU tar": (tarred(FILMS, tarfile.GNU_FORMAT), "a tar archive"),
    "old tar": (without_magic(tarred({"a.png": b"film"})), "a tar archive"),
    "tar.gz": (gzip.compress(TAR), "a tar.gz archive"),
    "tar.bz2": (bz2.compress(TAR), "a tar.bz2 archive"),
    "tar.xz": (lzma.compress(TAR), "a tar.xz archive"),
    "gz": (gzip.compress(b"one film" * 99), "a compressed file (.gz)"),
    "bz2": (bz2.compress(b"one film" * 99), "a compressed file (.bz2)"),
    "xz": (lzma.compress(b"one film" * 99), "a compressed file (.xz)"),
    "zst": (b"\x28\xb5\x2f\xfd\x24" + bytes(99), "a Zstandard file"),
    "lz4": (b"\x04\x22\x4d\x18" + bytes(99), "an LZ4 file"),
    "7z": (b"7z\xbc\xaf\x27\x1c\0\4" + bytes(500), "a 7z archive"),
    "RAR 4": (b"Rar!\x1a\x07\x00" + bytes(500), "a RAR archive"),
    "RAR 5": (b"Rar!\x1a\x07\x01\x00" + bytes(500), "a RAR archive"),
    "CAB": (b"MSCF" + bytes(99), "a Windows cabinet"),
    "ISO": (bytes(32769) + b"CD001\1" + bytes(3000), "an ISO disc image"),
    "z01": (b"PK\x07\x08" + zipped(FILMS)[:500], "the first part of a split zip: join"),
    "DICOM": (bytes(128) + b"DICM\x02\0" + bytes(99), "DICOM, which is not read: convert"),
    "PNG": (b"\x89PNG\r\n\x1a\n" + bytes(99), "a PNG image: give the folder"),
    "JPEG": (b"\xff\xd8\xff\xe0" + bytes(99), "a JPEG image"),
    "TIFF": (b"II*\0" + bytes(99), "a TIFF image"),
    "PDF": (b"%PDF-1.7\n" + bytes(99), "a PDF"),
    "program": (b"MZ\x90\0" + bytes(99), "a program: if it unpacks itself"),
    "HTML": (b"\xef\xbb\xbf\n <!doctype HTML><title>Log in</title>", "an HTML page"),
    "HTML without a doctype": (b"<html>log in</html>", "an HTML page"),
    "XML": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "an XML text"),
    "JSON": (b'{"message": "Not Found"}', "a JSON text"),
    "Git LFS": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d",
        "the pointer of a file in Git LFS: run git",
    ),
    "text": (b"film,patient\na,1\n", "a text"),
    "nothing": (b"", "an empty file: download or zip it again"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_file_that_is_no_zip_is_refused_as_what_it_is(tmp_path: Path, name: str) -> None:
    path = tmp_path / "films.zip"
    content, what = OTHERS[name]
    path.write_bytes(content)
    with pytest.raises(BadDataError) as raised:
        LocalZip(path)
    assert f"films.zip is not a zip but {what}" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert raised.value.exit_code == 65


def test_unknown_bytes_and_a_cut_zip_are_told_as_before(tmp_path: Path) -> None:
    for content in (b"\x00\x01\x02" * 99, zipped(FILMS)[:-1]):
        path = tmp_path / "films.zip"
        path.write_bytes(content)
        with pytest.raises(BadDataError, match="is not a zip or is truncated"):
            LocalZip(path)


@pytest.mark.parametrize("name", ["dataset/inner.zip", "dataset", "films.tar.gz"])
def test_a_zip_of_archives_alone_names_the_inner_one(tmp_path: Path, name: str) -> None:
    is_tar = name.endswith(".gz")
    inner = gzip.compress(TAR) if is_tar else zipped(FILMS)
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        path = write_zip(tmp_path / "outer.zip", {"README.txt": b"Read me", name: inner}, method)
        with pytest.raises(BadDataError) as raised:
            LocalZip(path)
        kind = "a tar.gz archive" if is_tar else "a zip: unpack the outer one and give the inner"
        assert f"holds no images; its member '{name}' is {kind}" in str(raised.value)


def test_a_zip_of_dicom_says_that_dicom_is_not_read(tmp_path: Path) -> None:
    dicom = bytes(128) + b"DICM" + bytes(3000)
    path = write_zip(tmp_path / "films.zip", {"DICOMDIR": dicom[:400], "IMG/IM000001": dicom})
    with pytest.raises(BadDataError, match=r"'IMG/IM000001' is DICOM, which is not read: convert"):
        LocalZip(path)


@pytest.mark.parametrize(
    "members",
    [
        FILMS | {"more.zip": zipped(FILMS)},
        {"patients.csv": b"film,patient\n", "notes.pdf": b"%PDF-1.7"},
        {"patients.xlsx": zipped({"[Content_Types].xml": b"<Types/>"})},
        {},
    ],
    ids=["films beside an archive", "texts", "a workbook", "nothing"],
)
def test_other_zips_are_opened(tmp_path: Path, members: dict[str, bytes]) -> None:
    source = LocalZip(write_zip(tmp_path / "films.zip", members))
    assert source.names() == sorted(members)
    source.close()


def test_a_zip_behind_a_program_is_read_and_one_inside_a_tar_is_not(tmp_path: Path) -> None:
    path = tmp_path / "films.zip"
    path.write_bytes(b"MZ" + bytes(5000) + zipped(FILMS))
    source = LocalZip(path)
    assert {name: source.read(name) for name in source.names()} == FILMS
    source.close()
    path.write_bytes(tarred(FILMS | {"masks.zip": zipped(FILMS)}))
    with pytest.raises(BadDataError, match="is not a zip but a tar archive"):
        LocalZip(path)


def test_a_split_zip_of_one_part_is_read(tmp_path: Path) -> None:
    """It begins with the mark of a split zip (APPNOTE 8.5.4)."""
    path = tmp_path / "films.zip"
    path.write_bytes(b"PK\x07\x08" + zipped(FILMS))
    source = LocalZip(path)
    assert {name: source.read(name) for name in source.names()} == FILMS
    source.close()


def test_the_last_part_of_a_split_zip_is_refused_as_such(tmp_path: Path) -> None:
    path = tmp_path / "films.zip"
    path.write_bytes(raw_zip(RawMember(b"a.png", volume=1)))
    with pytest.raises(BadDataError, match="a split zip or the last part of one: join the parts"):
        LocalZip(path)
    content = zipped(FILMS, zipfile.ZIP_STORED)
    path.write_bytes(content[len(content) // 2 :])
    with pytest.raises(BadDataError, match=r"lies before the file's start.*join the parts"):
        LocalZip(path)


def test_a_last_part_that_holds_the_directory_alone_says_how_to_join_the_parts(
    tmp_path: Path,
) -> None:
    """There the directory begins at 0, and its members lie in another file."""
    content = zipped(FILMS, zipfile.ZIP_STORED)
    directory = bytearray(content[content.index(b"PK\x01\x02") :])
    end = directory.rindex(b"PK\x05\x06")
    struct.pack_into("<L", directory, end + 16, 0)
    path = tmp_path / "films.zip"
    path.write_bytes(directory)
    with pytest.raises(BadDataError, match="if the zip was split, join the parts"):
        LocalZip(path)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    seconds: list[float] = []
    monkeypatch.setattr(retries, "sleep", seconds.append)
    return seconds


@pytest.fixture(params=[True, False], ids=["ranges", "no ranges"])
def server(request: pytest.FixtureRequest) -> Iterator[RangeServer]:
    files = {"set.rar": OTHERS["RAR 5"][0] + bytes(2**24), "outer.zip": zipped({"in.zip": TAR})}
    with range_server(files, has_ranges=request.param) as server:
        yield server


def test_an_archive_at_a_url_is_refused_by_its_first_bytes_and_not_downloaded(
    server: RangeServer, tmp_path: Path, pauses: list[float]
) -> None:
    with pytest.raises(BadDataError, match=r"set\.rar is not a zip but a RAR archive"):
        open_url(f"{server.url}/set.rar", tmp_path)
    kept = [path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()]
    assert sum(kept) < 2**20
    assert pauses == []


def test_a_zip_of_an_archive_at_a_url_is_refused_by_the_name_of_the_url(
    server: RangeServer, tmp_path: Path
) -> None:
    server.headers = {"x-goog-hash": ""}
    with pytest.raises(BadDataError, match=r"/outer\.zip holds no images; its member 'in\.zip'"):
        open_url(f"{server.url}/outer.zip", tmp_path)
