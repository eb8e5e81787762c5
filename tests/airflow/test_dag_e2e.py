"""`make dag-e2e`: a scheduler, containers on a real engine, a second run that reuses all work."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from jobs.chain import INPUTS
from tests.support.serving import AIRFLOW_PYTHON, ROOT

pytestmark = [pytest.mark.airflow, pytest.mark.slow, pytest.mark.timeout(900)]
# A line of the table of tasks: (task, state, "  reused" or "").
TASK = re.compile(r"^(\w+)(?: \[0\])? +(\w+) +[\d.]+ s(  reused)?$", re.MULTILINE)


def command(script: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(AIRFLOW_PYTHON), "-m", f"scripts.airflow.{script}", *arguments],
        cwd=ROOT,
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.engine
def test_two_runs_succeed_the_second_reuses_all_and_airflow_stores_no_secret(
    tmp_path: Path,
) -> None:
    home = tmp_path / "home"
    small = {"SIZE": "64", "EPOCHS": "2", "NETWORK": "small"}
    source = "synthetic://phantoms?films=12&seed=0"
    process = command("dag_e2e", str(home), SOURCE=source, **small)
    assert process.returncode == 0, process.stdout
    first, second = process.stdout.split("Second run")
    states = {task: (state, bool(reused)) for task, state, reused in TASK.findall(first)}
    assert states == dict.fromkeys([*INPUTS, "shards"], ("success", False))
    repeated = {task for task, _, reused in TASK.findall(second) if not reused}
    assert repeated == {"publish", "shards"}
    assert "containers of jobs left: 0" in second
    keys = json.loads((home / "s3" / "credentials.json").read_text())
    assert files_with_the_secret_key(home, keys) == []


def files_with_the_secret_key(home: Path, keys: dict[str, str]) -> list[str]:
    """The files of Airflow, except those of its S3 server, that hold the secret key."""
    secret = keys["AWS_SECRET_ACCESS_KEY"].encode()
    files = [path for path in home.rglob("*") if path.is_file() and home / "s3" not in path.parents]
    assert {"airflow.db", "scheduler.log"} <= {path.name for path in files}
    assert any(path.parent.name == "task_id=train" for path in files), "no log of a task"
    return [str(path) for path in files if secret in path.read_bytes()]


def test_without_an_airflow_dag_run_prints_one_line_that_says_how_to_start_one() -> None:
    url = "http://127.0.0.1:1"
    process = command("dag_run", AIRFLOW_URL=url, AIRFLOW_PASSWORD="x")
    assert process.returncode == 69
    assert process.stdout.startswith(f"no Airflow answers at {url}: start one with `make airflow`")
    assert process.stdout.count("\n") == 1, process.stdout
