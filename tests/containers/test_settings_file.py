"""The settings file of `make up` has every setting of the DAGs; Compose passes them to Airflow."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.airflow_tasks import ROOT

pytestmark = [
    pytest.mark.airflow,
    # Raised by Airflow's reader of .airflowignore.
    pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning"),
]

COMPOSE = (ROOT / "docker/compose.yaml").read_text()
# Settings of the backend `process`, which containers do not use.
OF_PROCESSES = {"LUNG_JOBS_HOME", "LUNG_JOBS_PYTHON"}
# What Compose itself decides.
FIXED = {"LUNG_BACKEND", "LUNG_DOCKER_NETWORK", "LUNG_POOL"}
# The file of version 0.2.0.
OLD = """\
COMPOSE_PROJECT_NAME=lung
LUNG_AIRFLOW_PORT=8080
LUNG_S3_PORT=8333
LUNG_ADMIN_PASSWORD=an-old-password
LUNG_SCHEDULE=0 3 * * 1
LUNG_MASKS_SCHEDULE=never
LUNG_SOURCE=
LUNG_FERNET_KEY=an-old-key
# Written by make up.
LUNG_GPUS=2"""


def defaults() -> dict[str, str]:
    """{setting: its default}, without those that no container reads or that Compose fixes."""
    from lung.settings import DEFAULTS

    return {name: DEFAULTS[name] for name in DEFAULTS.keys() - OF_PROCESSES - FIXED}


def write(path: Path, **variables: str) -> str:
    """What docker/env-file.sh prints when it writes, or completes, a file."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("LUNG_", "COMPOSE_"))}
    return subprocess.run(
        [ROOT / "docker/env-file.sh", path],
        env=inherited | variables,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout


def lines_of(path: Path) -> dict[str, str]:
    """{name: value}; a name that is there twice fails."""
    lines = [line for line in path.read_text().splitlines() if line[0] != "#"]
    settings = dict(line.split("=", 1) for line in lines)
    assert len(settings) == len(lines)
    return settings


def of_airflow() -> dict[str, str]:
    """The LUNG_* variables of Airflow's services in compose.yaml, not interpolated."""
    block = re.search(r"^x-airflow:.*?^x-healthcheck", COMPOSE, re.M | re.S)
    assert block
    return dict(re.findall(r"^    (LUNG_\w+): (.+)$", block[0], re.M))


def test_a_new_file_has_every_setting_with_its_default_below_a_comment(tmp_path: Path) -> None:
    write(tmp_path / ".env")
    text = (tmp_path / ".env").read_text()
    lines = {
        name: re.findall(rf"^(# [A-Z/].{{10,}}\.)\n{name}=(.*)$", text, re.M) for name in defaults()
    }
    assert {name: [value for _, value in found] for name, found in lines.items()} == {
        name: [value] for name, value in defaults().items()
    }


def test_compose_passes_every_setting_to_airflow() -> None:
    # `make up` counts the GPUs that the engine offers.
    sources = {name: name for name in defaults()} | {"LUNG_GPUS": "LUNG_GPU_COUNT"}
    passed = {name: re.findall(r"^\$\{(\w+):-.*}$", of_airflow()[name]) for name in sources}
    assert passed == {name: [source] for name, source in sources.items()}


@pytest.mark.parametrize("name", sorted(FIXED))
def test_compose_fixes_the_others_and_the_file_says_so(tmp_path: Path, name: str) -> None:
    assert name in of_airflow()
    write(tmp_path / ".env")
    assert name not in lines_of(tmp_path / ".env")
    assert re.search(
        rf"^# docker/compose\.yaml sets .*{name}", (tmp_path / ".env").read_text(), re.M
    )


def test_an_old_file_keeps_its_values_and_gets_what_it_lacks(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text(OLD)
    said = write(path)
    old = dict(line.split("=", 1) for line in OLD.splitlines() if line[0] != "#")
    assert lines_of(path) == defaults() | old
    assert set(said.split()) & defaults().keys() == defaults().keys() - old.keys()
    assert write(path) == ""


def test_variables_replace_the_defaults_of_settings_that_are_missing_alone(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text(OLD)
    write(path, LUNG_SHM_SIZE="4g", LUNG_SCHEDULE="@daily")
    assert lines_of(path)["LUNG_SHM_SIZE"] == "4g"
    assert lines_of(path)["LUNG_SCHEDULE"] == "0 3 * * 1"


def test_only_its_owner_reads_the_file(tmp_path: Path) -> None:
    write(tmp_path / ".env")
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600
