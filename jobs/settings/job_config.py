"""The settings that every job has, and what a config is: flags, checked values, an identity."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from jobs.settings.options import IF_SET, check, option
from jobs.settings.patterns import RUN_ID, S3_URI


@dataclass(frozen=True, kw_only=True)
class JobConfig:
    """The flags of every job."""

    out: str = option("Prefix to write to: s3://BUCKET/PREFIX", pattern=S3_URI, identity=False)
    run_id: str = option(
        "Id of the run, which names runs/<run_id>/: up to 128 letters, digits and . _ -, the first "
        "a letter or a digit",
        "manual",
        pattern=RUN_ID,
        identity=False,
    )
    force: bool = option(
        "Recompute results that exist already, once for each run id", False, identity=False
    )

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            check(item.name, getattr(self, item.name), item.metadata)

    def arguments(self) -> list[str]:
        """The command-line flags of this config."""
        flags = []
        for item in dataclasses.fields(self):
            flag, value = "--" + item.name.replace("_", "-"), getattr(self, item.name)
            is_unset = isinstance(value, bool) and value == item.default
            flags += [] if is_unset else [flag, str(value)]
        return flags

    def identity(self) -> dict[str, Any]:
        """The fields that decide the bytes written; inputs count by their content hashes."""
        return {
            item.name: getattr(self, item.name)
            for item in dataclasses.fields(self)
            if item.metadata["identity"] is True
            or (item.metadata["identity"] == IF_SET and getattr(self, item.name))
        }
