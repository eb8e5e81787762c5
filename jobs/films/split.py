"""Which split a patient's films go to: by a hash of the patient's id, or by a published file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import cast

from jobs.errors import BadDataError
from jobs.films.rows import SPLITS, Split
from jobs.sources.lookup_table import parse_lookup
from jobs.storage.s3 import Store

# With this salt even 12 phantoms have a film in each split.
SALT = "lung-segmentation-20"
TEST_BELOW, VAL_BELOW = 0.15, 0.30


def hashed_split(patient: str) -> Split:
    """train, val or test: a pure function of the patient, so that adding films moves nobody.

    The first 8 bytes of sha256(salt + patient) as a fraction in [0, 1): test below 0.15,
    validation below 0.30, train above.
    """
    digest = hashlib.sha256((SALT + patient).encode()).digest()
    fraction = int.from_bytes(digest[:8], "big") / 2**64
    return "test" if fraction < TEST_BELOW else "val" if fraction < VAL_BELOW else "train"


def split_of(patient: str, splits: Mapping[str, Split]) -> Split:
    """The patient's split by the split file, or by the hash where `splits` is empty.

    Raises BadDataError where the split file lacks the patient.
    """
    if splits and patient not in splits:
        raise BadDataError(
            f"the split file names no split for patient {patient!r}: add the line "
            f"'{patient},train' (or val, or test)"
        )
    return splits[patient] if splits else hashed_split(patient)


def read_split_file(store: Store, uri: str) -> dict[str, Split]:
    """{patient: split} of a CSV with the columns patient,split; {} where `uri` is empty.

    Raises BadDataError unless each patient has one of the splits, and each split a patient.
    """
    if not uri:
        return {}
    table = parse_lookup(store.read(uri), uri, "patient", "split")
    splits = {patient: split.lower() for patient, split in table.items()}
    names = ", ".join(SPLITS)
    for patient, split in splits.items():
        if split not in SPLITS:
            raise BadDataError(f"{uri} gives {patient!r} the split {split!r}: give one of {names}")
    if empty := [split for split in SPLITS if split not in splits.values()]:
        raise BadDataError(
            f"{uri} puts no patient into the split {empty[0]!r}: give each of {names} at least one"
        )
    return cast("dict[str, Split]", splits)
