"""Bounds on what is read from S3: a larger object is refused before it is in memory."""

from __future__ import annotations

from typing import Any

from jobs import typed_json
from jobs.errors import BadDataError
from jobs.runtime.memory import job_memory

# Of the job's memory, for one object that is read whole: weights, a checkpoint, a film.
OBJECT_SHARE = 0.25
# Bytes: a manifest with the --split-file of a million patients has some 30 MB.
LARGEST_JSON = 64 * 2**20
# Bytes that a byte of JSON takes once it is parsed, at most: lists in lists come close.
JSON_BYTES = 48


def check_size(name: str, size: int, largest: int) -> None:
    """Raise BadDataError for an object of `size` bytes over `largest`; 0: over its memory share."""
    if largest:
        check_bound(name, size, largest)
    check_memory(name, size)


def check_bound(name: str, size: int, limit: int) -> None:
    """Raise BadDataError where an object of `size` bytes is larger than any that a job writes."""
    if size > limit:
        raise BadDataError(
            f"{name} has {size} bytes, no job writes more than {limit}: it was replaced, run its "
            "job again with --force"
        )


def check_memory(name: str, size: int, held: int = 1) -> None:
    """Raise BadDataError where `size` bytes, each `held` bytes in memory, are too many for it."""
    if held * size > (limit := int(OBJECT_SHARE * job_memory())):
        raise BadDataError(
            f"{name} has {size} bytes, which take {held * size} in memory, over {limit}, a quarter "
            "of this job's: give the job more memory, or put the right object in its place"
        )


def parse_json(data: bytes, name: str) -> Any:
    """The value of a JSON text; BadDataError where it is none, too large or nested too deeply."""
    check_bound(name, len(data), LARGEST_JSON)
    check_memory(name, len(data), JSON_BYTES)
    return typed_json.parse(data, name)
