"""The whole DAG in one process, as `make dag-test` runs it, on phantoms."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from jobs.chain import INPUTS
from tests.support.airflow_tasks import ROOT

pytestmark = [pytest.mark.airflow, pytest.mark.slow, pytest.mark.timeout(900)]

FOLDERS = {"raw", "processed", "trained", "predictions", "evaluations", "runs", "models"}


def dag_test(**variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "scripts.airflow.dag_test"],
        cwd=ROOT,
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize("backend", ["process", pytest.param("docker", marks=pytest.mark.engine)])
def test_every_task_of_the_dag_succeeds_and_its_artifacts_are_in_s3(backend: str) -> None:
    process = dag_test(BACKEND=backend)
    output = process.stdout
    assert process.returncode == 0, output
    states = dict(re.findall(r"^(\w+)(?: \[0\])? +(\w+) +[\d.]+ s$", output, re.MULTILINE))
    assert states == dict.fromkeys([*INPUTS, "shards"], "success")
    counts = dict(re.findall(r"^s3://lung/pipeline/(\w+)/ +(\d+) objects$", output, re.MULTILINE))
    # Without a champion there is no models/.
    assert FOLDERS - {"models"} <= counts.keys() <= FOLDERS
    if backend == "docker":
        assert "containers of jobs left: 0" in output


def test_a_task_that_fails_ends_the_command_with_the_jobs_last_line() -> None:
    process = dag_test(BACKEND="process", SOURCE="file:///nowhere/films.zip")
    output = process.stdout
    assert process.returncode != 0
    assert re.search(r"^download +failed ", output, re.MULTILINE), output
    assert re.search(
        r"exit code 2: wrong arguments.*Its last line: NotFoundError: .*films\.zip", output
    ), output
