"""The schema of the Airflow form, built from the configs of the jobs so that both agree."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator
from typing import Any

from jobs.settings.config import JOBS
from jobs.settings.options import documentation

TYPE_NAMES = {int: "integer", float: "number", str: "string", bool: "boolean"}
# Bounds in a field's metadata by their keywords in JSON Schema.
KEYWORDS = {
    "minimum": "minimum",
    "maximum": "maximum",
    "multiple_of": "multipleOf",
    "choices": "enum",
    "format": "format",
}


def form_fields(job: str) -> Iterator[tuple[dataclasses.Field[Any], type]]:
    """The fields of the job that are on the form, with their types."""
    types = typing.get_type_hints(JOBS[job])
    for item in dataclasses.fields(JOBS[job]):
        if item.metadata["form"]:
            yield item, types[item.name]


def form_schema() -> dict[str, dict[str, Any]]:
    """`{job: {name: JSON schema}}` of all jobs; {} for a job without fields on the form."""
    return {job: {item.name: _param(item, kind) for item, kind in form_fields(job)} for job in JOBS}


def _param(item: dataclasses.Field[Any], kind: type) -> dict[str, Any]:
    metadata = item.metadata
    schema: dict[str, Any] = {
        "default": item.default,
        # Airflow accepts an empty field only if its type includes null.
        "type": [TYPE_NAMES[kind], "null"] if item.default == "" else TYPE_NAMES[kind],
        "title": metadata["title"],
        # The form clamps a number out of bounds silently, and a refused text is a "Bad Request".
        "description": documentation(metadata),
    }
    for name, keyword in KEYWORDS.items():
        if name in metadata:
            schema[keyword] = metadata[name]
    if "enum" in schema:
        schema["enum"] = list(schema["enum"])
    if "several_choices" in metadata:
        names = list(metadata["several_choices"])
        # Airflow offers the examples of an array as a list.
        schema |= {"default": [], "type": ["array", "null"], "examples": names}
        schema["items"] = {"enum": names}
    elif "pattern" in metadata:
        # Python's "$" also matches before a last newline.
        schema["pattern"] = rf"^(?:{metadata['pattern']})$(?!\n)"
    if metadata["form"] != "main":
        schema["section"] = metadata["form"]
    return schema
