"""Tasks whose first try sleeps until it is ended in some way; a later try succeeds at once.

LEAKS_OPERATOR names their operator: docker, process, or stock, the provider's DockerOperator.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import DAG

OPERATOR = os.environ["LEAKS_OPERATOR"]
OUT = os.environ["LUNG_BUCKET_URI"]
JOB = """
import json, os, signal, sys, time
from jobs.storage.s3 import Store
if not os.environ["RESULT_URI"].endswith("-1.json"):
    Store().write_json(os.environ["RESULT_URI"], {"done": True})
    sys.exit(0)
if "LUNG_LIFELINE" in os.environ:
    from jobs.runtime import lifeline
    lifeline.hold()
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
print("ready", flush=True)
time.sleep(600)
"""


def job(dag: str, task: str, **options: Any) -> None:
    uri = f"{OUT}/leaks/{{{{ run_id | replace(':', '-') }}}}/{task}-{{{{ ti.try_number }}}}.json"
    task_options: dict[str, Any] = {
        "task_id": task,
        "command": ["python", "-u", "-c", JOB],
        "environment": {"RESULT_URI": uri},
        "retries": 0,
        **options,
    }
    if OPERATOR == "process":
        from lung.process_operator import ProcessOperator

        home = os.environ["LEAKS_HOME"]
        ProcessOperator(python=f"{home}/.venv/bin/python", home=home, **task_options)
        return
    container: dict[str, Any] = {
        "image": "lung-jobs:local",
        "network_mode": os.environ["LUNG_DOCKER_NETWORK"],
        "mem_limit": "512m",
    }
    if OPERATOR == "docker":
        from lung.container_operator import ContainerOperator

        ContainerOperator(**container, **task_options)
        return
    from airflow.providers.docker.operators.docker import DockerOperator

    # Set by hand: only ContainerOperator labels its containers.
    labels = {"lung.dag": dag, "lung.task": task}
    task_options["private_environment"] = {
        name: value for name, value in os.environ.items() if name.startswith("AWS_")
    }
    DockerOperator(
        auto_remove="success", mount_tmp_dir=False, labels=labels, **container, **task_options
    )


for name, tasks in {
    "leaks_by_hand": {
        "timed_out": {"execution_timeout": timedelta(seconds=40)},
        "marked_failed": {},
        "cleared": {},
        "task_killed": {},
    },
    "leaks_by_kill": {
        "supervisor_killed": {},
        "both_killed": {},
        "scheduler_killed": {"retries": 1, "retry_delay": timedelta(seconds=1)},
    },
}.items():
    with DAG(name, schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), max_active_runs=1):
        for task, options in tasks.items():
            job(name, task, **options)
