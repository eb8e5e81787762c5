"""The names of a zip's members: in Unicode, in old encodings, and with backslashes."""

from __future__ import annotations

import binascii
import struct
from pathlib import Path

import pytest

from jobs.errors import BadDataError
from jobs.sources.archive import LocalZip
from tests.support.archives import RawMember, raw_zip

UTF_8 = 0x800
DOS, UNIX = 0, 3


def names_of(folder: Path, *members: RawMember) -> list[str]:
    path = folder / "films.zip"
    path.write_bytes(raw_zip(*members))
    source = LocalZip(path)
    try:
        return source.names()
    finally:
        source.close()


def encoded(folder: Path, encoding: str, *names: str) -> list[str]:
    return names_of(folder, *(RawMember(name.encode(encoding)) for name in names))


def unicode_path(raw: bytes, name: bytes, version: int = 1) -> bytes:
    """The extra field 0x7075 (Info-ZIP, APPNOTE 4.6.9)."""
    size = 5 + len(name)
    return struct.pack("<HHBL", 0x7075, size, version, binascii.crc32(raw)) + name


@pytest.mark.parametrize(
    "names",
    [
        ["images/患者表1.png", "masks/患者表1.png"],
        ["ソ能表.png", "胸部.png"],
        ["左肺/画像.png", "CT・MR/一覧.png"],
        ["plain.png", "はじめ.png"],
        ["髙橋.png", "左.png"],
        ["カルテ1.png", "テスト/ソフト表.png"],
        ["右肺野_1.png"],
    ],
)
def test_shift_jis_names_are_read_and_their_byte_5c_is_no_separator(
    tmp_path: Path, names: list[str]
) -> None:
    for host in (DOS, UNIX):
        members = (RawMember(name.encode("cp932"), host=host) for name in names)
        assert names_of(tmp_path, *members) == sorted(names)


@pytest.mark.parametrize("names", [["images/患者.png"], ["ü/ß.png"], ["снимок.png", "a.png"]])
def test_names_in_utf_8_need_no_flag(tmp_path: Path, names: list[str]) -> None:
    assert encoded(tmp_path, "utf-8", *names) == sorted(names)


@pytest.mark.parametrize(
    ("encoding", "names"),
    [
        ("gbk", ["患者.png", "肺部影像.png"]),
        ("gbk", ["樣本圖像.png"]),
        ("euc_kr", ["환자.png", "흉부/영상.png"]),
        ("big5", ["患者.png", "胸部影像.png"]),
        ("cp866", ["Снимок.png", "ФОТО.png", "пациент.png"]),
        ("cp866", ["ФОТО.png", "РЕНТГЕН_1.png", "ТЕСТ 2.png", "Тест.png"]),
        ("cp866", ["РЕНТГЕНA.png"]),
        ("cp737", ["ΘΩΡΑΚΑΣ_1.png"]),
        ("cp1251", ["снимок.png", "Пациент.png"]),
        ("cp437", ["Müller.png", "Röntgen.png", "é.png"]),
        ("cp852", ["małżeński.png", "część.png"]),
        ("cp852", ["örök.png", "Török.png", "ősök_1.png"]),
        ("cp850", ["élève.png", "Éléa.png", "préféré_2.png"]),
        ("cp857", ["Öğün.png", "Işık.png", "üçüz.png"]),
        ("cp1252", ["Müller.png", "Œuvre.png"]),
        ("cp932", ["ｶﾝｼﾞｬ.png"]),
        ("cp932", ["画像.png"]),
        ("euc_jp", ["患者.png"]),
    ],
)
def test_names_in_an_encoding_that_cannot_be_told_stay_the_same_bytes_and_are_warned_of(
    tmp_path: Path, encoding: str, names: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    found = encoded(tmp_path, encoding, "ascii.png", *names)
    assert {name.encode("cp437") for name in found} == {
        name.encode(encoding) for name in ("ascii.png", *names)
    }
    (warning,) = caplog.messages
    first = names[0].encode(encoding).decode("cp437")
    assert f"{len(names)} names, such as {first!r}" in warning
    assert "zip the folder again with names in UTF-8" in warning


def test_a_unicode_path_of_the_stored_name_is_the_name(tmp_path: Path) -> None:
    raw = "患者1.png".encode("cp932")
    extra = struct.pack("<HHB", 0x5455, 1, 0) + unicode_path(raw, "患者1.png".encode())
    ascii_name = RawMember(b"#U60a3.png", extra=unicode_path(b"#U60a3.png", "患.png".encode()))
    assert names_of(tmp_path, RawMember(raw, extra=extra), ascii_name) == ["患.png", "患者1.png"]


@pytest.mark.parametrize(
    "extra",
    [
        unicode_path(b"another name", b"b.png"),
        unicode_path(b"a.png", b"b.png", version=2),
        unicode_path(b"a.png", b"\xff.png"),
        struct.pack("<HHB", 0x7075, 1, 1),
    ],
    ids=["renamed since", "version 2", "not UTF-8", "cut"],
)
def test_a_unicode_path_that_is_not_of_the_stored_name_is_ignored_with_one_warning(
    tmp_path: Path, extra: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    members = [RawMember(b"a.png", extra=extra), RawMember(b"c.png", extra=extra)]
    assert names_of(tmp_path, *members) == ["a.png", "c.png"]
    (warning,) = caplog.messages
    assert "'a.png'" in warning and "ignored" in warning


def test_a_name_marked_as_utf_8_needs_no_unicode_path(tmp_path: Path) -> None:
    extra = unicode_path("é.png".encode(), b"b.png")
    assert names_of(tmp_path, RawMember("é.png".encode(), flags=UTF_8, extra=extra)) == ["é.png"]


def test_a_name_marked_as_utf_8_that_is_not_is_bad_data(tmp_path: Path) -> None:
    with pytest.raises(BadDataError, match=r"films\.zip has a name that is marked as UTF-8"):
        names_of(tmp_path, RawMember(b"\xff.png", flags=UTF_8))


def test_the_member_that_is_read_is_the_one_listed(tmp_path: Path) -> None:
    names = [f"患者表{n}.png" for n in range(5)]
    path = tmp_path / "films.zip"
    path.write_bytes(raw_zip(*(RawMember(n.encode("cp932"), n.encode()) for n in names)))
    source = LocalZip(path)
    assert {name: source.read(name).decode() for name in source.names()} == {n: n for n in names}
    source.close()


def test_two_members_whose_names_mean_the_same_are_refused(tmp_path: Path) -> None:
    marked = RawMember("患者.png".encode(), flags=UTF_8)
    with pytest.raises(BadDataError, match=r"'患者\.png' is in the archive twice"):
        names_of(tmp_path, marked, RawMember("患者.png".encode("cp932")))


@pytest.mark.parametrize(
    ("host", "names", "expected"),
    [
        (DOS, ["images\\1.png", "masks\\1.png"], ["images/1.png", "masks/1.png"]),
        (DOS, ["a\\b\\/", "a\\b\\1.png"], ["a/b/1.png"]),
        (11, ["images\\1.png"], ["images/1.png"]),
        (DOS, ["x/1.png", "a\\b.png"], ["a\\b.png", "x/1.png"]),
        (UNIX, ["a\\b.png"], ["a\\b.png"]),
        (UNIX, ["images/a\\b.png"], ["images/a\\b.png"]),
        (UNIX, ["images/", "images\\1.png"], ["images/1.png"]),
        (UNIX, ["images/0.png", "images\\sub\\1.png"], ["images/0.png", "images/sub/1.png"]),
    ],
    ids=[
        "Windows alone",
        "folders of Java on Windows",
        "NTFS",
        "MS-DOS with slashes",
        "Unix",
        "Unix within a folder",
        "of a folder that is listed",
        "of a folder that has files",
    ],
)
def test_a_backslash_separates_in_zips_of_windows_and_below_folders_of_the_archive(
    tmp_path: Path, host: int, names: list[str], expected: list[str]
) -> None:
    members = (RawMember(name.encode(), host=host) for name in names)
    assert names_of(tmp_path, *members) == expected


def test_a_backslash_that_is_part_of_a_name_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names_of(tmp_path, RawMember(b"a\\b.png"), RawMember(b"c.png"))
    (warning,) = caplog.messages
    assert "1 of 2 names, such as 'a\\\\b.png'" in warning and "zip the folder again" in warning


def test_half_of_a_character_in_an_unknown_encoding_is_no_separator(tmp_path: Path) -> None:
    """功 of Big5 ends in byte 5C."""
    raw = "功.png".encode("big5")
    assert raw[1:2] == b"\\"
    assert [name.encode("cp437") for name in names_of(tmp_path, RawMember(raw, host=DOS))] == [raw]
