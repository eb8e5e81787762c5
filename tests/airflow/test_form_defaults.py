"""The form's defaults that a deployment sets, and those of `make airflow`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.airflow_tasks import ROOT

pytestmark = [
    pytest.mark.airflow,
    # Raised by Airflow's reader of .airflowignore.
    pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning"),
]

SHORT = {"size": 256, "epochs": 16, "network": "small", "train_sources": ["phantoms"]}


def refusal(monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> str:
    from lung.form import params

    monkeypatch.setenv(name, text)
    with pytest.raises(ValueError) as caught:
        params("download", "train")
    return str(caught.value)


def test_the_settings_replace_the_forms_defaults_of_each_dag_that_has_the_option(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from lung.form import FORM, params

    monkeypatch.setenv("LUNG_SOURCE", "s3://hospital/films/")
    monkeypatch.setenv("LUNG_FORM_DEFAULTS", json.dumps(SHORT | {"name": "mine"}))
    training = params("download", "preprocess", "train", "publish")
    values = {name: training[name].value for name in training}
    assert values.items() >= (SHORT | {"name": "mine", "source": "s3://hospital/films/"}).items()
    assert values["seed"] == FORM["train"]["seed"]["default"]
    masks = params("inbox")
    assert {name: masks[name].value for name in masks} == {
        "inbox": "s3://lung/inbox",
        "name": "mine",
        "remask": True,
    }


@pytest.mark.parametrize("text", ["size=256", "[256]", "256", '{"size": 256'])
def test_text_that_is_no_json_object_is_refused_with_the_form(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = refusal(monkeypatch, "LUNG_FORM_DEFAULTS", text)
    assert error == (
        f'LUNG_FORM_DEFAULTS is {text!r}: give JSON such as {{"size": 256, "epochs": 16}}'
    )


@pytest.mark.parametrize("name", ["sise", "source", "inbox", "gpus"])
def test_a_name_that_is_no_option_or_has_its_own_setting_is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = refusal(monkeypatch, "LUNG_FORM_DEFAULTS", json.dumps({name: 1}))
    assert error.startswith(f"LUNG_FORM_DEFAULTS has {name}: give names among batch_size, ")


@pytest.mark.parametrize(
    ("name", "value"), [("size", 500), ("epochs", "16"), ("network", "tiny"), ("size", None)]
)
def test_a_value_that_the_form_would_refuse_is_an_import_error(
    name: str, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = refusal(monkeypatch, "LUNG_FORM_DEFAULTS", json.dumps({name: value}))
    assert error.startswith(f"{name} of LUNG_FORM_DEFAULTS is {value!r}, give: ")


def test_a_source_of_another_scheme_is_an_import_error(monkeypatch: pytest.MonkeyPatch) -> None:
    error = refusal(monkeypatch, "LUNG_SOURCE", "kagle://hospital/lungs")
    assert error.startswith("LUNG_SOURCE is 'kagle://hospital/lungs', give: Source of the films: ")


def test_both_dags_are_parsed_with_the_defaults_of_make_airflow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from airflow.dag_processing.dagbag import DagBag

    from scripts.airflow.airflow_home import FORM_DEFAULTS, PHANTOMS

    monkeypatch.setenv("LUNG_SOURCE", PHANTOMS)
    monkeypatch.setenv("LUNG_FORM_DEFAULTS", json.dumps(FORM_DEFAULTS))
    bag = DagBag(ROOT / "dags")
    assert bag.import_errors == {}
    form = bag.dags["lung_segmentation"].params
    assert form.dump().items() >= (FORM_DEFAULTS | {"source": PHANTOMS}).items()
