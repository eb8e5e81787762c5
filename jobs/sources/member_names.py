"""The names of a zip's members: which characters their bytes mean, and which "\\" is a separator.

A flag marks a name as UTF-8. Names without it are decided in this order:

1. Info-ZIP's Unicode Path extra field (0x7075), if its CRC-32 is that of the stored name.
2. ASCII.
3. One encoding for all other names of the archive:
   UTF-8, which macOS writes without the flag, if all of them are valid UTF-8;
   cp932, the Shift-JIS of Windows, if `is_shift_jis` accepts all of them;
   else CP437, the encoding of the zip specification. It maps each byte to one character, so that
   equal bytes stay equal names, and the bytes can be had back. A warning names one of the names.
"""

from __future__ import annotations

import logging
import re
import struct
import zipfile
import zlib
from collections.abc import Sequence

from jobs.sources.zip_member import IS_UTF8, raw_name

log = logging.getLogger(__name__)

UNICODE_PATH = 0x7075
# Systems whose file names hold no "\": MS-DOS, OS/2, NTFS by PKWARE and by Info-ZIP, VFAT
# (APPNOTE 4.4.2.2). Java and Go write MS-DOS everywhere.
WINDOWS = {0, 6, 10, 11, 14}
# The name in an extra field that is of no use.
UNUSABLE = ""

# What cp932 decodes and Shift-JIS names do not need: control characters, half-width katakana
# (bytes that begin most characters of GBK, Big5 and EUC-KR) and characters for private use.
NOT_IN_NAMES = re.compile("[\x80-\xa0\uff61-\uff9f\ue000-\uf8ff]")
# A Latin word with one accent in CP437 or cp852: R\x94ntgen would be R馬tgen. Japanese puts only
# signs there, as in CT・MR.
LONE_IN_LATIN = re.compile(r"[A-Za-z][^\x00-\x7f・＿－～\u3000][A-Za-z]")

# A word of at least three kana or kanji, with no Latin letter beside it.
JAPANESE = "\u3005\u3041-\u30fe\u4e00-\u9fff"
JAPANESE_WORD = re.compile(f"(?<![A-Za-z{JAPANESE}])[{JAPANESE}]{{3,}}(?![A-Za-z{JAPANESE}])")
# A character whose first byte GB2312, Big5, EUC-KR and cp1251 do not use, and whose second draws
# lines in CP437 and cp866; or, in a word, whose second is no letter of cp866, of which a name in
# CP437 or cp852 has no three in a row.
NO_OTHER = re.compile(rb"[\x81-\x9f][\xb0-\xdf]")
NO_OTHER_IN_WORD = re.compile(rb"[\x81-\x9f][A-Za-z\xb0-\xdf\xf2-\xfc]")


def member_names(infos: Sequence[zipfile.ZipInfo], archive: str) -> list[str]:
    """The name of each member, with "/" as separator; `archive` is named in warnings.

    Raises UnicodeDecodeError for a name that is marked as UTF-8 and is not.
    """
    raws = [raw_name(info) for info in infos]
    marked = [_marked_name(info, raw) for info, raw in zip(infos, raws, strict=True)]
    if ignored := [raw for raw, name in zip(raws, marked, strict=True) if name == UNUSABLE]:
        log.warning(
            "%s: the Unicode names of %d members, such as %r, are damaged or of other names: they "
            "are ignored",
            archive,
            len(ignored),
            ignored[0].decode("cp437"),
        )
    unmarked = [raw for raw, name in zip(raws, marked, strict=True) if not name]
    encoding = _encoding_of(unmarked, archive)
    names = [name or raw.decode(encoding) for raw, name in zip(raws, marked, strict=True)]
    # Where the encoding is unknown, a "\" after another such byte may be half of a character.
    backslash = r"(?<![^\x00-\x7f])\\" if encoding == "cp437" else r"\\"
    return _with_slashes(infos, names, re.compile(backslash), archive)


def is_shift_jis(raws: Sequence[bytes]) -> bool:
    """Whether non-ASCII names are certainly Shift-JIS, and not of another old encoding.

    They must be valid cp932 without the characters of NOT_IN_NAMES, have no lone character within
    a Latin word, and have a character that no other encoding explains: one of NO_OTHER, such as
    患 (8A B3), 胸 (8B B9) or 左 (8D B6), or one of NO_OTHER_IN_WORD, such as テ (83 65) in テスト.
    画像 alone (89 E6 91 9C) could be Cyrillic.
    """
    try:
        text = "\n".join(raw.decode("cp932") for raw in raws)
    except UnicodeDecodeError:
        return False
    if NOT_IN_NAMES.search(text) or LONE_IN_LATIN.search(text):
        return False
    characters = re.sub(f"[^{JAPANESE}]", "", text)
    # A word's last byte may be a Latin letter behind Cyrillic ones.
    in_words = "".join(word[:-1] for word in JAPANESE_WORD.findall(text))
    return _has(NO_OTHER, characters) or _has(NO_OTHER_IN_WORD, in_words)


def _has(pattern: re.Pattern[bytes], text: str) -> bool:
    """Whether the cp932 bytes of one of the characters match the pattern."""
    return any(pattern.fullmatch(character.encode("cp932")) for character in set(text))


def _marked_name(info: zipfile.ZipInfo, raw: bytes) -> str | None:
    """The name of a member that says what its characters are; None or UNUSABLE if it does not."""
    return raw.decode() if info.flag_bits & IS_UTF8 else _unicode_path(info.extra, raw)


def _unicode_path(extra: bytes, raw: bytes) -> str | None:
    """The name in the extra field 0x7075: version 1, the CRC-32 of the stored name, UTF-8.

    None without the field, UNUSABLE where it is another version, damaged or of another name.
    """
    while len(extra) >= 4:
        tag, length = struct.unpack_from("<HH", extra)
        data, extra = extra[4 : 4 + length], extra[4 + length :]
        if tag == UNICODE_PATH:
            is_usable = data[:5] == struct.pack("<BL", 1, zlib.crc32(raw)) and _is_utf_8(data[5:])
            return data[5:].decode() if is_usable else UNUSABLE
    return None


def _encoding_of(raws: Sequence[bytes], archive: str) -> str:
    """utf-8, cp932 or cp437, the encoding of the names that have no mark."""
    raws = [raw for raw in raws if not raw.isascii()]
    if _is_utf_8(b"\n".join(raws)):
        return "utf-8"
    if is_shift_jis(raws):
        name = raws[0].decode("cp932")
        log.info("%s: %d names are read as Shift-JIS, such as %r", archive, len(raws), name)
        return "cp932"
    log.warning(
        "%s: %d names, such as %r, are in an encoding that the zip does not tell and are read as "
        "CP437: if they look wrong, zip the folder again with names in UTF-8",
        archive,
        len(raws),
        raws[0].decode("cp437"),
    )
    return "cp437"


def _is_utf_8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _with_slashes(
    infos: Sequence[zipfile.ZipInfo],
    names: Sequence[str],
    backslash: re.Pattern[str],
    archive: str,
) -> list[str]:
    """The names with "/" for each "\\" that separates folders.

    It does in archives of Windows that have no "/" within a name (.NET before 4.6.1 wrote these),
    and where what precedes it is a folder of the archive, so that "/" separates there too. Anywhere
    else it is a character of the name, as on Linux and macOS, and is warned of.
    """
    if not any("\\" in name for name in names):
        return list(names)
    has_slashes = any("/" in name.rstrip("/") for name in names)
    folders = {name[: end.start()] for name in names for end in re.finditer("/", name)}

    def is_separated(info: zipfile.ZipInfo, name: str) -> bool:
        if info.create_system in WINDOWS and not has_slashes:
            return True
        return any(name[: end.start()] in folders for end in backslash.finditer(name))

    slashed = [
        backslash.sub("/", name) if is_separated(info, name) else name
        for info, name in zip(infos, names, strict=True)
    ]
    if left := [name for name in slashed if "\\" in name]:
        log.warning(
            "%s: the backslash in %d of %d names, such as %r, is part of the name: if it separates "
            "folders, zip the folder again",
            archive,
            len(left),
            len(names),
            left[0],
        )
    return slashed
