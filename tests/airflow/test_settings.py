"""The deployment's settings and prerequisites, and what comes of machines that disagree."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.airflow_tasks import ROOT

pytestmark = [
    pytest.mark.airflow,
    # Raised by Airflow's reader of .airflowignore.
    pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning"),
]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the settings, which does not exist yet."""
    from lung import settings

    path = tmp_path / "lung_settings.toml"
    monkeypatch.setattr(settings, "FILE", path)
    return path


def test_the_file_is_beside_the_package() -> None:
    from lung import settings

    assert settings.FILE == ROOT / "dags" / "lung_settings.toml"


def test_the_file_wins_over_the_environment_and_that_over_the_default(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lung.settings import setting

    assert setting("LUNG_POOL") == "gpu"
    monkeypatch.setenv("LUNG_POOL", "of-the-environment")
    assert setting("LUNG_POOL") == "of-the-environment"
    file.write_text('LUNG_BUCKET_URI = "s3://a/b"  # a comment\nLUNG_POOL = ""\n')
    assert setting("LUNG_POOL") == "of-the-environment"
    file.write_text('LUNG_POOL = "of-the-file"\n')
    assert setting("LUNG_POOL") == "of-the-file"


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"LUNG_POOL = gpu", "line 1, column 13"),
        (b"LUNG_POOL='gpu\xff'", "utf-8"),
        (b'LUNG_BUCKET = "s3://a/b"', "LUNG_BUCKET is no setting; it can be .*LUNG_BUCKET_URI"),
        (b"LUNG_GPUS = 2", 'LUNG_GPUS is 2; a line is NAME = "value"'),
        (b'[LUNG_POOL]\nname = "gpu"', "LUNG_POOL is {'name': 'gpu'}"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused_by_line_or_name(
    file: Path, content: bytes, error: str
) -> None:
    from lung.settings import setting

    file.write_bytes(content)
    with pytest.raises(ValueError, match=error) as raised:
        setting("LUNG_POOL")
    assert str(file) in str(raised.value)
    assert "\n" not in str(raised.value)


def dag_errors(*modules: str) -> dict[str, str]:
    """The import errors of both DAGs, which load the modules anew."""
    from airflow.dag_processing.dagbag import DagBag

    with pytest.MonkeyPatch.context() as patch:
        for module in modules:
            patch.delitem(sys.modules, module, raising=False)
        return dict(DagBag(ROOT / "dags").import_errors)


def test_a_wrong_line_of_the_file_is_the_import_error_of_both_dags(file: Path) -> None:
    file.write_text('LUNG_BUCKET = "s3://a/b"')
    errors = dag_errors()
    assert {Path(name).stem for name in errors} == {"lung_masks", "lung_segmentation"}
    for error in errors.values():
        assert "LUNG_BUCKET is no setting" in error.splitlines()[-1]


def test_the_prerequisites_are_the_locked_versions() -> None:
    from lung.prerequisites import LOWEST_AIRFLOW, PROVIDERS, missing_packages

    locked = (ROOT / "docker" / "requirements" / "airflow.in").read_text().split()
    assert f"apache-airflow=={LOWEST_AIRFLOW}" in locked
    assert {f"apache-airflow-providers-{n}=={v}" for n, v in PROVIDERS.items()} < set(locked)
    assert missing_packages("3.3.2") == missing_packages("3.4.0rc1") == []
    assert missing_packages("3.3.1") == ["apache-airflow==3.3.2"]


def test_an_absent_provider_is_one_import_error_with_the_line_for_pip(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    find_spec = importlib.util.find_spec

    def without_docker(name: str, *arguments: Any) -> Any:
        return None if name == "airflow.providers.docker" else find_spec(name, *arguments)

    monkeypatch.setattr("importlib.util.find_spec", without_docker)
    errors = dag_errors("lung.prerequisites")
    assert {Path(name).stem for name in errors} == {"lung_masks", "lung_segmentation"}
    line = "pip install apache-airflow==3.3.2 apache-airflow-providers-docker==4.6.1"
    for error in errors.values():
        last = error.splitlines()[-1]
        assert last.startswith("ImportError: The lung DAGs need Airflow 3.3.2 or newer")
        assert last.endswith(line)


def test_the_prerequisites_are_checked_before_anything_of_airflow_is_imported() -> None:
    for name in ("lung_masks", "lung_segmentation", "lung/run_report"):
        text = (ROOT / "dags" / f"{name}.py").read_text()
        imported = re.findall(r"^(?:from|import) (lung|airflow)\b", text, re.MULTILINE)
        assert imported[0] == "lung", name


def test_a_run_that_began_in_another_bucket_fails_with_both_named(file: Path) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    from lung.tasks import POLICY

    file.write_text('LUNG_BUCKET_URI = "s3://films/lung/"')
    dag = SimpleNamespace(dag_id="lung_segmentation", params={})

    def check(command: list[str]) -> None:
        context = {
            "dag": dag,
            "dag_run": SimpleNamespace(conf=None),
            "task": SimpleNamespace(command=command),
        }
        POLICY["default_args"]["pre_execute"](context)

    start = ["python", "-m", "jobs", "preprocess", "--raw"]
    check([*start, "s3://films/lung/raw/fp/manifest.json", "--out", "s3://films/lung"])
    for began in ("s3://other/lung", "s3://films/lungs"):
        with pytest.raises(AirflowFailException, match="on every machine of Airflow") as raised:
            check([*start, f"{began}/raw/fp/manifest.json", "--out", "s3://films/lung"])
        assert f"began below {began}, " in str(raised.value)
        assert "is s3://films/lung:" in str(raised.value)
