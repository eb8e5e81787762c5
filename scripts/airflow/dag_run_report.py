"""Prints how the tasks of a DAG run ended, and how many objects the run wrote to S3."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

# The tasks of the newest run in Airflow's database; column 5 is start_date.
TASKS = """
SELECT task_id, map_index, state, try_number, start_date, end_date FROM task_instance
WHERE run_id = (SELECT run_id FROM dag_run ORDER BY id DESC LIMIT 1) ORDER BY start_date IS NULL, 5
"""


@dataclass(frozen=True)
class Task:
    """A task of a run: its final state, its duration, and its job's result."""

    name: str
    state: str
    seconds: float
    tries: int = 1
    result: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""

    @property
    def has_succeeded(self) -> bool:
        return self.state == "success"

    @property
    def is_reused(self) -> bool:
        return bool(self.result.get("reused"))


def name_of(task: str, map_index: int) -> str:
    return task if map_index < 0 else f"{task} [{map_index}]"


def seconds_of(tasks: Sequence[Task]) -> float:
    """The sum of the tasks' seconds; parallel tasks count each."""
    return sum(task.seconds for task in tasks)


def print_tasks(tasks: Sequence[Task]) -> None:
    """One line per task, their sum, and the errors of failed tasks."""
    for task in tasks:
        notes = ["reused"] * task.is_reused + [f"try {task.tries}"] * (task.tries > 1)
        line = f"{task.name:16} {task.state:16} {task.seconds:8.1f} s  {'  '.join(notes)}"
        print(line.rstrip())
    print(f"{'together':33} {seconds_of(tasks):8.1f} s", flush=True)
    for task in tasks:
        if task.error:
            print(f"{task.name} failed: {task.error}", flush=True)


def tasks_in(database: Path) -> list[Task]:
    """The tasks of the newest run in Airflow's SQLite database, in order of start."""
    with sqlite3.connect(database) as connection:
        rows = connection.execute(TASKS).fetchall()
    return [
        Task(name_of(task, index), state or "not run", _seconds(start, end), tries)
        for task, index, state, tries, start, end in rows
    ]


def _seconds(start: str | None, end: str | None) -> float:
    if not (start and end):
        return 0.0
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def print_artifacts(uri: str, s3: Mapping[str, str]) -> None:
    """Print how many objects each folder of `uri` holds; `s3` has the server's AWS_* variables."""
    import boto3
    from botocore.config import Config

    parts = urlsplit(uri)
    prefix = parts.path.lstrip("/") + "/"
    client = boto3.client(
        "s3",
        endpoint_url=s3["AWS_ENDPOINT_URL"],
        region_name=s3["AWS_DEFAULT_REGION"],
        aws_access_key_id=s3["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=s3["AWS_SECRET_ACCESS_KEY"],
        config=Config(proxies={}),  # the server is on this machine
    )
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=parts.netloc, Prefix=prefix)
    keys = [item["Key"].removeprefix(prefix) for page in pages for item in page.get("Contents", [])]
    for folder, count in sorted(Counter(key.partition("/")[0] for key in keys).items()):
        print(f"{uri}/{folder + '/':16} {count:6} objects")
