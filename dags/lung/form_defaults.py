"""The deployment's defaults of the form, from its settings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from airflow.sdk import Param
from airflow.sdk.exceptions import ParamValidationError

from lung.settings import setting

# Options with settings of their own, which are never in LUNG_FORM_DEFAULTS.
OWN_SETTINGS = {"source": "LUNG_SOURCE", "inbox": "LUNG_INBOX"}


def form_defaults(options: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """{option: default} of the settings, for the options {option: JSON schema} of all jobs.

    Raises ValueError, an import error of the DAG, for what the form would refuse.
    """
    values = _json_object(setting("LUNG_FORM_DEFAULTS"))
    accepted = sorted(options.keys() - OWN_SETTINGS.keys())
    if unknown := sorted(values.keys() - set(accepted)):
        raise ValueError(
            f"LUNG_FORM_DEFAULTS has {', '.join(unknown)}: give names among {', '.join(accepted)}"
        )
    for name, value in values.items():
        _check(f"{name} of LUNG_FORM_DEFAULTS", value, options[name])
    for name, variable in OWN_SETTINGS.items():
        if text := setting(variable):
            _check(variable, text, options[name])
            values[name] = text
    return values


def _json_object(text: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise ValueError(
            f'LUNG_FORM_DEFAULTS is {text!r}: give JSON such as {{"size": 256, "epochs": 16}}'
        )
    return values


def _check(name: str, value: Any, schema: Mapping[str, Any]) -> None:
    try:
        Param(**schema).resolve(value)
    except ParamValidationError:
        raise ValueError(f"{name} is {value!r}, give: {schema['description']}") from None
