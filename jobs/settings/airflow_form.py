"""The Airflow form's schema, made from the jobs' dataclasses so that the two cannot differ."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator
from typing import Any

from jobs.settings.config import JOBS

TYPE_NAMES = {int: "integer", float: "number", str: "string", bool: "boolean"}
KEYWORDS = {
    "minimum": "minimum",
    "maximum": "maximum",
    "multiple_of": "multipleOf",
    "choices": "enum",
}


def form_fields(job: str) -> Iterator[tuple[dataclasses.Field[Any], type]]:
    """Every field of the job that stands on the form, with its type."""
    kinds = typing.get_type_hints(JOBS[job])
    for item in dataclasses.fields(JOBS[job]):
        if item.metadata["form"]:
            yield item, kinds[item.name]


def form_schema() -> dict[str, dict[str, Any]]:
    """`{job: {name: JSON schema}}` of every job, those without fields on the form too."""
    return {job: {item.name: _param(item, kind) for item, kind in form_fields(job)} for job in JOBS}


def _param(item: dataclasses.Field[Any], kind: type) -> dict[str, Any]:
    about = item.metadata
    schema: dict[str, Any] = {
        "default": item.default,
        # The form lets a field stay empty only where its type admits null.
        "type": [TYPE_NAMES[kind], "null"] if item.default == "" else TYPE_NAMES[kind],
        "title": about["title"],
        "description": about["description"],
    }
    schema |= {word: about[name] for name, word in KEYWORDS.items() if name in about}
    if "enum" in schema:
        schema["enum"] = list(schema["enum"])
    if about.get("pattern"):
        schema["pattern"] = f"^{about['pattern']}$"
    if about["form"] != "main":
        schema["section"] = about["form"]
    return schema
