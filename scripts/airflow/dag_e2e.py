"""Runs the DAG twice under a scheduler, its jobs in containers on the Docker engine.

usage: .venv-airflow/bin/python -m scripts.airflow.dag_e2e [HOME]

Variables: SOURCE SIZE EPOCHS NETWORK. The second run has the same params and must reuse all work
but publish's. Exit code 0 only if every task of both runs succeeded and no container is left. The
command starts an Airflow and an S3 server; their data are removed unless HOME is given.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from scripts.airflow.airflow_home import PHANTOMS, ROOT
from scripts.airflow.dag_run import containers_left, log_in, or_exit_code, run, with_defaults
from scripts.airflow.dag_run_report import Task, seconds_of
from scripts.airflow.serve_airflow import serving, until_stopped

DEFAULTS = {"SOURCE": PHANTOMS, "SIZE": "256", "EPOCHS": "5", "NETWORK": "small"}
# publish writes the report of each run; shards runs no job.
NEVER_REUSED = {"publish", "shards"}


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="lung-e2e-") as work:
        home = Path(sys.argv[1] if sys.argv[1:] else f"{work}/airflow").resolve()
        with serving(home, backend="docker", dags=ROOT / "dags", port=0) as (_, exported):
            return run_twice({**os.environ, **with_defaults(DEFAULTS), **exported})


def run_twice(environment: Mapping[str, str]) -> int:
    """Run the DAG twice with the same params; the command's exit code."""
    client = log_in(environment)
    print("\nFirst run", flush=True)
    first = run(client, environment)
    if not all(task.has_succeeded for task in first):
        return containers_left(environment) or 1
    print("\nSecond run, with the same params", flush=True)
    second = run(client, environment)
    print()
    repeated = _repeated(second)
    if repeated:
        print(f"not reused from the first run: {', '.join(repeated)}")
    before, after = seconds_of(first), seconds_of(second)
    print(f"task seconds: {before:.1f}, then {after:.1f}: {after / before:.1%} of the first run's")
    left = containers_left(environment)
    succeeded = all(task.has_succeeded for task in second)
    return 0 if succeeded and not repeated and not left else 1


def _repeated(tasks: list[Task]) -> list[str]:
    """The tasks of the second run that should have reused work and did not."""
    names = ((task.name, task.name.partition(" ")[0]) for task in tasks if not task.is_reused)
    return [name for name, job in names if job not in NEVER_REUSED]


if __name__ == "__main__":
    sys.exit(until_stopped(lambda: or_exit_code(main)))
