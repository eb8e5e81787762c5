"""`make dag-e2e`: a scheduler, containers on the real engine, and a second run that reuses all."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from jobs.settings.config import JOBS
from tests.support.serving import AIRFLOW_PYTHON, ROOT

pytestmark = [pytest.mark.airflow, pytest.mark.slow, pytest.mark.timeout(900)]
TASK = re.compile(r"^(\w+)(?: \[0\])? +(\w+) +[\d.]+ s(  reused)?$", re.MULTILINE)
STAGES = {"download", "preprocess", "train", "predict", "evaluate", "publish"}


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
def test_two_runs_are_green_the_second_reuses_all_and_no_secret_is_left_in_airflow(
    tmp_path: Path,
) -> None:
    home = tmp_path / "home"
    small = {"SIZE": "64", "EPOCHS": "2", "NETWORK": "small"}
    source = "synthetic://phantoms?films=12&seed=0"
    done = command("dag_e2e", str(home), SOURCE=source, **small)
    assert done.returncode == 0, done.stdout
    first, second = done.stdout.split("Second run")
    assert JOBS.keys() >= STAGES
    states = {task: (state, bool(reused)) for task, state, reused in TASK.findall(first)}
    assert states == dict.fromkeys([*STAGES, "shards"], ("success", False))
    again = {task for task, _, reused in TASK.findall(second) if not reused}
    assert again == {"publish", "shards"}
    assert "containers of jobs left: 0" in second
    assert holders(home, json.loads((home / "s3" / "credentials.json").read_text())) == []


def holders(home: Path, keys: dict[str, str]) -> list[str]:
    """Which files of Airflow hold the S3 server's secret key; the server's own folder may."""
    secret = keys["AWS_SECRET_ACCESS_KEY"].encode()
    files = [path for path in home.rglob("*") if path.is_file() and home / "s3" not in path.parents]
    assert {"airflow.db", "scheduler.log"} <= {path.name for path in files}
    assert any(path.parent.name == "task_id=train" for path in files), "no log of a task"
    return [str(path) for path in files if secret in path.read_bytes()]


def test_a_run_without_an_airflow_ends_in_one_line_that_says_how_to_start_one() -> None:
    nowhere = "http://127.0.0.1:1"
    done = command("dag_run", AIRFLOW_URL=nowhere, AIRFLOW_PASSWORD="x")
    assert done.returncode == 69
    assert done.stdout.startswith(f"no Airflow answers at {nowhere}: start one with `make airflow`")
    assert done.stdout.count("\n") == 1, done.stdout
