"""Which files may be images: by their names alone, independent of the other files."""

from __future__ import annotations

import os
import re

from jobs.sources.file_kinds import ARCHIVE_ENDINGS

IMAGES = {
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".jfi", ".jif", ".pjpeg", ".pjp"),
    *(".tif", ".tiff", ".gif", ".bmp", ".dib", ".webp"),
    *(".jp2", ".j2k", ".j2c", ".jpx", ".jpf", ".jpc"),
}
TEXTS = {
    *(".txt", ".csv", ".tsv", ".xml", ".json", ".md", ".pdf", ".html", ".htm", ".log"),
    *(".xls", ".xlsx", ".doc", ".docx", ".rtf", ".yaml", ".yml"),
}
ARCHIVES = {".zip", *ARCHIVE_ENDINGS}
DICOM = {".dcm", ".dicom", ".ima"}

# What network storage, Windows and macOS leave beside a user's files; names in lower case.
SYSTEM = re.compile(
    r"@eadir|@tmp|@__thumb|\.@__.*|@recycle|@recently-snapshot|@sharebin|#recycle|#snapshot"
    r"|@app(store|data|home|temp|conf)|@database|@docker|@sharesnap|@img_bkp_cache|@s2s|@cloudsync"
    r"|~snapshot|\.snapshot|\.zfs|\$recycle\.bin|recycler|recycled|\$extend|\$windows\..*"
    r"|system volume information|found\.\d{3}|lost\+found|\.trash.*|\.spotlight-v100|\.fseventsd"
    r"|\.appledouble|\.ds_store"
    r"|__macosx|\._.*|~\$.*|(eh)?thumbs.*\.db|desktop\.ini|icon\r|network trash folder"
    r"|temporary items|synophoto_.*|synoindex_.*|.*@syno(resource|eastream)|.*:zone\.identifier"
)

SYSTEM_FILE, HIDDEN, TEXT = "system files", "hidden files and folders", "text and metadata"
DICOM_FILE, ARCHIVE, OTHER = "DICOM files", "archives", "other files"


def reason_to_ignore(name: str) -> str:
    """Why a name with folders is not an image's, one of the reasons above; "" if it may be."""
    parts = name.lower().split("/")
    if any(map(SYSTEM.fullmatch, parts)):
        return SYSTEM_FILE
    if any(part.startswith(".") for part in parts):
        return HIDDEN
    ending = ending_of(name)
    if ending in IMAGES:
        return ""
    for endings, reason in ((TEXTS, TEXT), (DICOM, DICOM_FILE), (ARCHIVES, ARCHIVE)):
        if ending in endings:
            return reason
    return OTHER


def ending_of(name: str) -> str:
    """The extension in lower case with its dot and without spaces behind it, "" without one."""
    return os.path.splitext(name.rpartition("/")[2])[1].lower().rstrip()
