"""What a source holds, for the error that refuses it: its folders, their endings, what is taken."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable

from jobs.sources.file_names import ARCHIVE, HIDDEN, SYSTEM_FILE, ending_of, reason_to_ignore

FORMS = (
    "images/ beside masks/, with equal names or with _mask, -mask, _seg, _label or _lung at the "
    "mask's end; masks/left lung/ and masks/right lung/; org/ beside label/; CXR_png/ beside "
    "ManualMask/; films beside their own NAME_mask.png"
)
# Folders listed in an error.
NAMED = 8


def remedy(names: Iterable[str]) -> str:
    """To give the forms that are taken; where there are archives and no image, to unpack one."""
    reasons = {reason_to_ignore(name): name for name in names}
    if ARCHIVE in reasons and "" not in reasons:
        return f"unpack {reasons[ARCHIVE]!r} (a zip may be the source itself) and give {FORMS}"
    return f"give {FORMS}"


def folders_met(names: Iterable[str]) -> str:
    """The folders with the most files, digits as "#": "images/ (24 .png), masks/heart/ (24 .gif)".

    System files and hidden ones are left out.
    """
    endings: dict[str, Counter[str]] = defaultdict(Counter)
    for name in names:
        if reason_to_ignore(name) not in (SYSTEM_FILE, HIDDEN):
            folder = name[: name.rfind("/") + 1] or "./"
            endings[re.sub(r"\d+", "#", folder)][ending_of(name) or "without ending"] += 1
    folders = sorted(endings, key=lambda folder: (-endings[folder].total(), folder))
    described = [f"{folder} ({_counts(endings[folder])})" for folder in folders[:NAMED]]
    more = [f"{len(folders) - NAMED} more folders"] if len(folders) > NAMED else []
    return ", ".join(described + more) or "no files"


def two_of_a_name(names: Iterable[str]) -> str:
    """The only two folders of the files, where both have the same two stems or more; "" if not.

    "input/ and output/": one of them may hold the masks of the other.
    """
    stems: dict[str, set[str]] = defaultdict(set)
    for name in names:
        folder, _, file = name.rpartition("/")
        stems[folder].add(os.path.splitext(file)[0])
    if len(stems) != 2 or len({frozenset(files) for files in stems.values()}) > 1:
        return ""
    first, second = sorted(stems)
    return f"{first}/ and {second}/" if len(stems[first]) > 1 else ""


def _counts(endings: Counter[str]) -> str:
    return ", ".join(f"{count} {ending}" for ending, count in endings.most_common(3))
