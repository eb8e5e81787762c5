"""The field of a config, with its bounds and its texts on the command line and the Airflow form."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import MISSING, field
from typing import Any

from jobs.errors import ConfigError
from jobs.sources.source import split_sources

# Where the next of several sources, which "+" joins, begins.
NEXT_SOURCE = r"\+[a-z0-9]+:\/\/"


def _s3(character: str = r"[\s\S]", end: str = "$") -> str:
    """A pattern of "s3://" before a sound URI; `character` and `end` say how far the URI goes.

    S3 servers disagree about keys with an empty, "." or ".." folder, and nobody sees a control
    character or a space at the end. The URI of a flag has none; listed keys of a bucket may.
    """
    unsound = rf"\/\/|\/\.\.?(?:\/|{end})|\s{end}|[\x00-\x1f\x7f-\x9f]"
    return rf"s3:\/(?!{character}*(?:{unsound}))\/"


S3_URI = rf"{_s3()}[^\/]+(\/.*)?"
S3_OBJECT = rf"{_s3()}[^\/]+\/.+"
MANIFEST_URI = rf"{_s3()}[^\/]+\/.*manifest\.json"
_CHARACTER = rf"(?:(?!{NEXT_SOURCE})[\s\S])"
_SOURCE = rf"(?:{_s3(_CHARACTER, rf'(?:{NEXT_SOURCE}|$)')}[^\/]|(?!s3:)[a-z0-9]+:\/\/){_CHARACTER}+"
SOURCES_URI = rf"{_SOURCE}(\+{_SOURCE})*"
# What these patterns refuse, in words.
UNSOUND = {
    r"[\x00-\x1f\x7f-\x9f]": "a control character",
    r"\s$": "a space at its end",
    r"/\.\.?(/|$)": "a folder named . or ..",
    r"//": "an empty folder (//)",
}
# Gray values of 16 bits, 0 to 65535, and colors, joined by commas, or nothing.
GRAY = "[0-9]{1,4}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]"
MASK_VALUES = f"(({GRAY}|#[0-9a-fA-F]{{6}})(,({GRAY}|#[0-9a-fA-F]{{6}}))*)?"
# Of a field that is part of the fingerprint only where it has a value.
IF_SET = "if set"


def option(
    description: str,
    default: Any = MISSING,
    *,
    title: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    multiple_of: int | None = None,
    choices: tuple[str, ...] = (),
    pattern: str = "",
    form: str = "",
    identity: bool | str = True,
) -> Any:
    """A dataclass field whose metadata hold its documentation and its bounds.

    `form` is the field's section on the Airflow form: "main" for the fields above all sections, ""
    for a field that is not on the form. `identity` is whether the field is part of the fingerprint,
    IF_SET where its empty value is not.
    """
    bounds = {
        "minimum": minimum,
        "maximum": maximum,
        "multiple_of": multiple_of,
        "choices": choices,
        "pattern": pattern,
    }
    texts = {"description": description, "title": title, "form": form, "identity": identity}
    set_bounds = {name: bound for name, bound in bounds.items() if bound not in (None, "", ())}
    return field(default=default, metadata=texts | set_bounds)


def model_name(*, form: str) -> Any:
    return option(
        "Name of the model, as in models/<name>/: up to 64 letters, digits and . _ -, the first a "
        "letter or a digit",
        "lung-unet",
        title="Model name",
        pattern=r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}",
        form=form,
    )


def lung_values(*, form: str) -> Any:
    return option(
        "Values of the masks that are lung, joined by commas: gray values from 0 to 65535 such as "
        "1,2 or 255, colors such as #ff0000. Empty: the brighter of two values; a mask of more is "
        "quarantined",
        "",
        title="Values of the masks that are lung",
        pattern=MASK_VALUES,
        form=form,
        identity=IF_SET,
    )


def manifest_uri(name: str) -> Any:
    return option(
        f"URI of the {name} manifest: s3://BUCKET/PREFIX/.../manifest.json",
        pattern=MANIFEST_URI,
        identity=False,
    )


def check(name: str, value: Any, metadata: Mapping[str, Any]) -> None:
    """Raise ConfigError unless `value` is within the bounds in its field's metadata."""
    flag = "--" + name.replace("_", "-")
    if "pattern" in metadata and not re.fullmatch(metadata["pattern"], value):
        raise ConfigError(
            f"{flag} {value!r} has {_trouble(value)}, give: {metadata['description']}"
        )
    if "choices" in metadata and value not in metadata["choices"]:
        raise ConfigError(f"{flag} {value!r} is not one of {', '.join(metadata['choices'])}")
    # Negated comparisons, so that NaN is out of bounds.
    if "minimum" in metadata and not value >= metadata["minimum"]:
        raise ConfigError(f"{flag} {value} is too small: give {metadata['minimum']} or more")
    if "maximum" in metadata and not value <= metadata["maximum"]:
        raise ConfigError(f"{flag} {value} is too large: give {metadata['maximum']} or less")
    if "multiple_of" in metadata and value % metadata["multiple_of"]:
        step = metadata["multiple_of"]
        raise ConfigError(
            f"{flag} {value} is not a multiple of {step}: give {value // step * step or step}"
        )


def _trouble(value: str) -> str:
    """Why a value is not of its pattern, in words."""
    paths = [uri.removeprefix("s3:/") for uri in split_sources(value) if uri.startswith("s3:/")]
    return next(
        (words for kind, words in UNSOUND.items() if any(re.search(kind, path) for path in paths)),
        "the wrong form",
    )


def check_apart(flag: str, films: str, out: str) -> None:
    """Raise ConfigError if the prefix `films` contains `out`, where jobs write images."""
    if f"{out}/".startswith(films.rstrip("/") + "/"):
        raise ConfigError(
            f"{flag} {films} contains --out {out}: the job would read the jobs' own output; give a "
            "prefix that does not contain --out"
        )
