"""The field of a config, with its bounds and its texts on the command line and the Airflow form."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import MISSING, field
from typing import Any

from jobs.errors import ConfigError
from jobs.settings.patterns import MANIFEST_URI, MASK_VALUES, MODEL_NAME, SOURCE_URI, several_of
from jobs.sources.source import split_sources

# What the patterns of URIs refuse, in words.
UNSOUND = {
    r"[\x00-\x1f\x7f-\x9f]": "a control character",
    r"\s$": "a space at its end",
    r"/\.\.?(/|$)": "a folder named . or ..",
    r"//": "an empty folder (//)",
}
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
    several_choices: tuple[str, ...] = (),
    pattern: str = "",
    text_format: str = "",
    form: str = "",
    identity: bool | str = True,
) -> Any:
    """A dataclass field whose metadata hold its documentation and its bounds.

    A value of `several_choices` is some of them, joined by commas. `text_format` is a format of
    JSON Schema for the form, such as "regex"; the job checks the text itself.
    `form` is the field's section on the Airflow form: "main" for the fields above all sections, ""
    for a field that is not on the form. `identity` is whether the field is part of the fingerprint,
    IF_SET where its empty value is not.
    """
    bounds = {
        "minimum": minimum,
        "maximum": maximum,
        "multiple_of": multiple_of,
        "choices": choices,
        "several_choices": several_choices,
        "pattern": several_of(several_choices) if several_choices else pattern,
        "format": text_format,
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
        pattern=MODEL_NAME,
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


def film_sources(verb: str, consequence: str = "") -> Any:
    """The sources of films, by their names in the films' rows, that a job trains or tests on."""
    return option(
        f"Sources to {verb} on: montgomery, shenzhen, phantoms, custom (all others), joined by "
        f"commas on the command line; empty: all{consequence}",
        "",
        title=f"{verb.capitalize()} sources",
        several_choices=("montgomery", "shenzhen", "phantoms", "custom"),
        form="Advanced",
    )


def documentation(metadata: Mapping[str, Any]) -> str:
    """The field's description with its bounds, as in "Epochs (from 1 to 2000)"."""
    bounds = [
        f"{word} {metadata[name]}"
        for name, word in (("minimum", "from"), ("maximum", "to"))
        if name in metadata
    ]
    text: str = metadata["description"]
    return f"{text} ({' '.join(bounds)})" if bounds else text


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
    parts = split_sources(value)
    paths = [uri.removeprefix("s3:/") for uri in parts if uri.startswith("s3:/")]
    for kind, words in UNSOUND.items():
        if any(re.search(kind, path) for path in paths):
            return words
    wrong = [part for part in parts if not re.fullmatch(SOURCE_URI, part)]
    return f"a part of the wrong form, {wrong[0]!r}" if wrong and parts[1:] else "the wrong form"


def check_apart(flag: str, films: str, out: str) -> None:
    """Raise ConfigError if the prefix `films` contains `out`, where jobs write images."""
    if f"{out}/".startswith(films.rstrip("/") + "/"):
        raise ConfigError(
            f"{flag} {films} contains --out {out}: the job would read the jobs' own output; give a "
            "prefix that does not contain --out"
        )
