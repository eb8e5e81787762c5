"""Runs the DAG in one process without a scheduler, on phantoms or SOURCE.

usage: .venv-airflow/bin/python -m scripts.airflow.dag_test

Variables: BACKEND=process|docker SOURCE SIZE EPOCHS NETWORK. Exit code 0 only if the run succeeded.
The command creates an Airflow database and an S3 server, and removes both.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from scripts.airflow.airflow_home import BUCKET_URI, ROOT, airflow, migrate, s3_server, settings
from scripts.airflow.dag_run import UsageError, containers_left, or_exit_code, params, with_defaults
from scripts.airflow.dag_run_report import print_artifacts, print_tasks, tasks_in
from scripts.airflow.serve_airflow import until_stopped

DEFAULTS = {
    "SOURCE": "synthetic://phantoms?films=32&seed=0",
    "SIZE": "64",
    "EPOCHS": "2",
    "NETWORK": "small",
}
LOG = ROOT / "build" / "dag-test.log"
# A job's line within Airflow's log line, and the lines of Airflow that are printed whole.
JOB_LINE = re.compile(r"^[^]]*\] (?P<text>.*?)(?: +\[airflow\.task\.operators.*)?$")
RUN_LINE = re.compile(r"^[A-Za-z_.]+(Error|Exception|Timeout): |^DagRun")


def main() -> int:
    backend = os.environ.get("BACKEND", "process")
    if backend not in ("process", "docker"):
        raise UsageError(f"BACKEND is {backend!r}: it can be docker or process")
    with tempfile.TemporaryDirectory(prefix="lung-dag-test-") as work:
        home = Path(work, "airflow")
        home.mkdir()
        with s3_server(backend, home / "s3") as s3:
            environment = settings(home, dags=ROOT / "dags", backend=backend, s3=s3)
            conf = json.dumps(params(environment | with_defaults(DEFAULTS)))
            print(f"Setting up an Airflow database in {home}", flush=True)
            migrate(home, environment)
            code = _test(airflow("dags", "test", "lung_segmentation", "--conf", conf), environment)
            print_tasks(tasks_in(home / "airflow.db"))
            print_artifacts(environment.get("LUNG_BUCKET_URI", BUCKET_URI), s3)
            left = containers_left(environment) if backend == "docker" else 0
            return code or int(left > 0)


def _test(command: list[str], environment: Mapping[str, str]) -> int:
    """Run the command, print its jobs' output and its errors, and return its exit code."""
    LOG.parent.mkdir(exist_ok=True)
    with (
        LOG.open("w") as log,
        subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process,
    ):
        assert process.stdout
        for line in process.stdout:
            log.write(line)
            if "Operator]" in line and (match := JOB_LINE.match(line)):
                print(match["text"], flush=True)
            elif RUN_LINE.match(line):
                print(line, end="", flush=True)
    if process.returncode:
        print(f"Airflow's whole log: {LOG}")
    return process.returncode


if __name__ == "__main__":
    sys.exit(until_stopped(lambda: or_exit_code(main)))
