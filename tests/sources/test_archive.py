"""The members of a zip: listed, read, and refused with their names."""

from __future__ import annotations

import binascii
import hashlib
import os
import random
import re
import stat
import struct
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jobs.errors import AccessError, BadDataError, NotFoundError
from jobs.sources.archive import LocalZip
from jobs.sources.catalogue import describe
from jobs.sources.layouts import recognise
from jobs.sources.source import LARGEST_FILE
from tests.support.archives import write_zip

MEMBERS = {f"images/{n}.png": random.Random(n).randbytes(20_000) for n in range(30)}
MEMBERS |= {"masks/1.png": b"mask" * 1000}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return write_zip(tmp_path / "films.zip", MEMBERS)


def assert_refused(path: Path, *words: str) -> None:
    pattern = ".*".join(re.escape(word) for word in words)
    with pytest.raises(BadDataError, match=pattern):
        LocalZip(path)


def test_members_are_listed_sorted_and_read_whole(archive: Path) -> None:
    source = LocalZip(archive)
    assert source.names() == sorted(MEMBERS)
    assert {name: source.read(name) for name in source.names()} == MEMBERS
    source.close()


def test_the_identity_is_a_hash_of_the_content_and_independent_of_path_and_compression(
    archive: Path, tmp_path: Path
) -> None:
    lines = [
        f"{name}\0{len(content)}\0{binascii.crc32(content):08x}\n"
        for name, content in sorted(MEMBERS.items())
    ]
    expected = {"sha256": hashlib.sha256("".join(lines).encode()).hexdigest()}
    renamed = tmp_path / "copy.zip"
    renamed.write_bytes(archive.read_bytes())
    reordered = {name: MEMBERS[name] for name in reversed(MEMBERS)}
    stored = write_zip(tmp_path / "stored.zip", reordered, zipfile.ZIP_STORED)
    for path in (archive, renamed, stored):
        assert LocalZip(path).identity() == expected
    changed = write_zip(tmp_path / "changed.zip", MEMBERS | {"masks/1.png": b"other"})
    assert LocalZip(changed).identity() != expected


def test_eight_threads_read_what_one_reads(archive: Path) -> None:
    source = LocalZip(archive)
    names = source.names() * 10
    with ThreadPoolExecutor(8) as pool:
        for name, content in zip(names, pool.map(source.read, names), strict=True):
            assert content == MEMBERS[name]
    source.close()


def test_folders_are_not_listed_and_windows_separators_are_read(tmp_path: Path) -> None:
    members = {"a/": b"", "a/b.png": b"1", "./c/d.png": b"2"}
    path = write_zip(tmp_path / "films.zip", members)
    path.write_bytes(path.read_bytes().replace(b"a/b.png", b"a\\b.png"))
    source = LocalZip(path)
    assert source.names() == ["a/b.png", "c/d.png"]
    assert source.read("a/b.png") == b"1"
    source.close()


@pytest.mark.parametrize(
    "name",
    ["../evil.png", "a/../../evil.png", "..\\evil.png", "a\\..\\evil.png"],
)
def test_a_member_outside_the_archive_is_refused_by_name(tmp_path: Path, name: str) -> None:
    path = write_zip(tmp_path / "films.zip", {"a.png": b"", name: b"x"})
    assert_refused(path, repr(name.replace("\\", "/")), "lies outside")


@pytest.mark.parametrize("name", ["/etc/evil.png", "\\evil.png", "C:\\evil.png", "c:/evil.png"])
def test_an_absolute_member_is_refused_by_name(tmp_path: Path, name: str) -> None:
    path = write_zip(tmp_path / "films.zip", {"a.png": b"", name: b"x"})
    assert_refused(path, repr(name.replace("\\", "/")), "not a relative path")


def test_a_name_that_contains_two_dots_is_accepted(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "films.zip", {"a..b/..c.png": b"x"})
    assert LocalZip(path).names() == ["a..b/..c.png"]


def test_a_link_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "films.zip"
    link = zipfile.ZipInfo("images/link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(link, "/etc/passwd")
    assert_refused(path, "images/link.png", "is a link")


def patch_directory(path: Path, offset: int, layout: str, value: int) -> None:
    """Change one field of the first entry of the central directory."""
    content = bytearray(path.read_bytes())
    struct.pack_into(layout, content, content.index(b"PK\x01\x02") + offset, value)
    path.write_bytes(content)


def test_an_encrypted_member_is_refused_by_name(archive: Path) -> None:
    patch_directory(archive, 8, "<H", 1)
    assert_refused(archive, "images/0.png", "encrypted", "without a password")


def test_an_unsupported_compression_is_refused_by_name(archive: Path) -> None:
    patch_directory(archive, 10, "<H", 9)
    assert_refused(archive, "images/0.png", "method 9", "deflate")


def test_a_member_that_declares_too_many_bytes_is_refused_by_name(archive: Path) -> None:
    patch_directory(archive, 24, "<I", LARGEST_FILE + 1)
    assert_refused(archive, "images/0.png", str(LARGEST_FILE + 1))


@pytest.mark.parametrize("second", ["a/b.png", "a\\b.png", "a//b.png", "./a/b.png"])
def test_a_name_that_is_in_the_archive_twice_is_refused(tmp_path: Path, second: str) -> None:
    path = tmp_path / "films.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/b.png", b"1")
        archive.writestr(second.replace("a/b.png", "a/X.png"), b"2")
    path.write_bytes(path.read_bytes().replace(b"a/X.png", b"a/b.png"))
    assert_refused(path, "'a/b.png'", "twice")


def test_a_flipped_byte_is_reported_with_its_member(archive: Path) -> None:
    content = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as opened:
        member = opened.getinfo("images/7.png")
    content[member.header_offset + 30 + len(member.filename) + 5000] ^= 1
    archive.write_bytes(content)
    source = LocalZip(archive)
    assert source.read("images/6.png") == MEMBERS["images/6.png"]
    with pytest.raises(BadDataError, match=r"images/7\.png.*download or zip it again"):
        source.read("images/7.png")
    source.close()


def test_a_member_shorter_than_declared_is_reported(archive: Path) -> None:
    patch_directory(archive, 24, "<I", 20_001)
    with pytest.raises(BadDataError, match=r"images/0\.png"):
        LocalZip(archive).read("images/0.png")


@pytest.mark.parametrize("length", [0, 10, 1000, -1])
def test_a_truncated_archive_is_reported_with_a_remedy(archive: Path, length: int) -> None:
    archive.write_bytes(archive.read_bytes()[:length])
    assert_refused(archive, "films.zip", "download or zip it again")


def test_a_text_file_named_zip_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "films.zip"
    path.write_text("not a zip " * 1000)
    assert_refused(path, "films.zip is not a zip")


def test_an_absent_archive_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"none\.zip"):
        LocalZip(tmp_path / "none.zip")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_an_archive_without_read_permission_is_an_access_error(archive: Path) -> None:
    archive.chmod(0)
    with pytest.raises(AccessError, match="grant read access"):
        LocalZip(archive)


def test_the_real_montgomery_archive_has_sixty_pairs(shared_data: Path) -> None:
    source = LocalZip(shared_data / "kermany-as-montgomery.zip")
    catalogue = recognise([source.names()])
    assert describe(catalogue) == [
        "films: 60 (montgomery 60), with a mask: 60",
        "files ignored: 4 (system files 3, text and metadata 1)",
    ]
    assert {film.source for film in catalogue.films} == {"montgomery"}
    assert all(set(film.masks) == {"left", "right"} for film in catalogue.films)
    assert source.read(catalogue.films[0].film[1]).startswith(b"\x89PNG")
    source.close()


def test_every_file_of_the_real_masks_and_labels_archive_is_recognised(shared_data: Path) -> None:
    source = LocalZip(shared_data / "kermany-as-masks-and-labels.zip")
    catalogue = recognise([source.names()])
    assert catalogue.layouts == {"masks-and-labels": 140}
    sources = [film.source for film in catalogue.films]
    assert (sources.count("shenzhen"), sources.count("montgomery")) == (100, 40)
    assert sum(set(film.masks) == {"lungs"} for film in catalogue.films) == 130
    repeated = [copy[1].rsplit("/", 1)[1].removesuffix(".png") for _, copy in catalogue.copies]
    assert sorted(repeated) == catalogue.without_mask
    assert len(repeated) == 10
    for first, copy in catalogue.copies:
        assert source.read(first[1]) == source.read(copy[1])
    assert catalogue.ignored == {"text and metadata": 140, "hidden files and folders": 1}
    source.close()
