"""Runs the DAG twice under a scheduler of its own, its jobs in containers on the real engine.

usage: .venv-airflow/bin/python -m scripts.airflow.dag_e2e [HOME]

Variables: SOURCE SIZE EPOCHS NETWORK. The second run has the same params and must find all
but publish done. Exit code 0 only if every task of both runs is green and no container is left.
Airflow's database, its logs and S3 are of this command's own; they are kept where HOME is given.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from scripts.airflow.airflow_home import PHANTOMS, ROOT
from scripts.airflow.dag_run import chosen, containers_left, log_in, or_exit_code, run
from scripts.airflow.dag_run_report import Task, seconds_of
from scripts.airflow.serve_airflow import serving, until_stopped

DEFAULTS = {"SOURCE": PHANTOMS, "SIZE": "256", "EPOCHS": "5", "NETWORK": "small"}
ALWAYS_NEW = {"publish", "shards"}  # publish writes a run's own report; shards is no job


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="lung-e2e-") as work:
        home = Path(sys.argv[1] if sys.argv[1:] else f"{work}/airflow").resolve()
        with serving(home, backend="docker", dags=ROOT / "dags", port=0) as (_, shown):
            return twice({**os.environ, **chosen(DEFAULTS), **shown})


def twice(place: Mapping[str, str]) -> int:
    client = log_in(place)
    print("\nFirst run", flush=True)
    first = run(client, place)
    if not all(task.is_green for task in first):
        return containers_left(place) or 1
    print("\nSecond run, with the same params", flush=True)
    second = run(client, place)
    print()
    again = _done_again(second)
    if again:
        print(f"done again, though it was done before: {', '.join(again)}")
    before, after = seconds_of(first), seconds_of(second)
    print(f"task seconds: {before:.1f}, then {after:.1f}: {after / before:.1%} of the first run's")
    left = containers_left(place)
    return 0 if all(task.is_green for task in second) and not again and not left else 1


def _done_again(tasks: list[Task]) -> list[str]:
    names = ((task.name, task.name.partition(" ")[0]) for task in tasks if not task.is_reused)
    return [name for name, job in names if job not in ALWAYS_NEW]


if __name__ == "__main__":
    sys.exit(until_stopped(lambda: or_exit_code(main)))
