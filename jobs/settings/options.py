"""A config's field, with what the command line and the Airflow form say of it, and its bounds."""

from __future__ import annotations

import re
from dataclasses import MISSING, field
from typing import Any

from jobs.errors import ConfigError


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
    identity: bool = True,
) -> Any:
    """A dataclass field that carries its own documentation and bounds.

    `form` places the field on the Airflow form: "main" without a section, any other word names the
    section; an empty string leaves it off.
    """
    bounds = {
        "minimum": minimum,
        "maximum": maximum,
        "multiple_of": multiple_of,
        "choices": choices,
        "pattern": pattern,
    }
    about = {"description": description, "title": title, "form": form, "identity": identity}
    given = {name: bound for name, bound in bounds.items() if bound not in (None, "", ())}
    return field(default=default, metadata=about | given)


def check(name: str, value: Any, bounds: Any) -> None:
    """Raise ConfigError unless `value` lies within its field's bounds."""
    flag = "--" + name.replace("_", "-")
    if "pattern" in bounds and not re.fullmatch(bounds["pattern"], value):
        raise ConfigError(f"{flag} {value!r} has the wrong form: give {bounds['description']}")
    if "choices" in bounds and value not in bounds["choices"]:
        raise ConfigError(f"{flag} {value!r} is not one of {', '.join(bounds['choices'])}")
    if "minimum" in bounds and not value >= bounds["minimum"]:
        raise ConfigError(f"{flag} {value} is too small: give {bounds['minimum']} or more")
    if "maximum" in bounds and not value <= bounds["maximum"]:
        raise ConfigError(f"{flag} {value} is too large: give {bounds['maximum']} or less")
    if "multiple_of" in bounds and value % bounds["multiple_of"]:
        step = bounds["multiple_of"]
        raise ConfigError(
            f"{flag} {value} is not a multiple of {step}: give {value // step * step or step}"
        )


def check_apart(flag: str, films: str, out: str) -> None:
    """Raise ConfigError where the prefix `films` holds `out`: a job would read what jobs wrote."""
    if f"{out}/".startswith(films.rstrip("/") + "/"):
        raise ConfigError(
            f"{flag} {films} holds --out {out}, whose images are no new films: give a prefix for "
            "films alone"
        )
