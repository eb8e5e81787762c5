"""The whole DAG in-process, as `make dag-test` runs it, over phantoms."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from jobs.settings.config import CHAIN
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
def test_every_task_of_the_dag_ends_well_and_leaves_its_artifacts_in_s3(backend: str) -> None:
    done = dag_test(BACKEND=backend)
    assert done.returncode == 0, done.stdout
    states = dict(re.findall(r"^(\w+)(?: \[0\])? +(\w+) +[\d.]+ s$", done.stdout, re.MULTILINE))
    assert states == dict.fromkeys([*CHAIN, "shards"], "success")
    written = dict(re.findall(r"^s3://lung/pipeline/(\w+)/ +(\d+) objects$", done.stdout, re.M))
    assert FOLDERS - {"models"} <= written.keys() <= FOLDERS
    if backend == "docker":
        assert "containers of jobs left: 0" in done.stdout


def test_a_task_that_fails_ends_the_run_and_the_command_with_what_the_job_said() -> None:
    done = dag_test(BACKEND="process", SOURCE="file:///nowhere/films.zip")
    assert done.returncode != 0
    assert re.search(r"^download +failed ", done.stdout, re.MULTILINE), done.stdout
    assert re.search(
        r"exit code 2: wrong arguments.*It said: NotFoundError: .*films\.zip", done.stdout
    )
