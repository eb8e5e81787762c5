"""Prints how the last DAG run in an Airflow database went, and what it left in S3.

usage: python docker/dag_run_report.py DATABASE s3://BUCKET/PREFIX
"""

from __future__ import annotations

import sqlite3
import sys
from collections import Counter
from datetime import datetime
from urllib.parse import urlsplit

import boto3

TASKS = """
SELECT task_id, map_index, state, try_number, start_date, end_date FROM task_instance
WHERE run_id = (SELECT run_id FROM dag_run ORDER BY id DESC LIMIT 1) ORDER BY start_date IS NULL, 5
"""


def print_tasks(database: str) -> None:
    with sqlite3.connect(database) as connection:
        tasks = connection.execute(TASKS).fetchall()
    for task, map_index, state, tries, start, end in tasks:
        name = task if map_index < 0 else f"{task} [{map_index}]"
        seconds = f"{_seconds(start, end):8.1f} s" if end else ""
        print(f"{name:16} {state or 'not run':16} {seconds}{f'  try {tries}' * (tries > 1)}")


def _seconds(start: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def print_artifacts(uri: str) -> None:
    parts = urlsplit(uri)
    prefix = parts.path.lstrip("/") + "/"
    pages = boto3.client("s3").get_paginator("list_objects_v2")
    keys = [
        item["Key"].removeprefix(prefix)
        for page in pages.paginate(Bucket=parts.netloc, Prefix=prefix)
        for item in page.get("Contents", [])
    ]
    for folder, count in sorted(Counter(key.partition("/")[0] for key in keys).items()):
        print(f"{uri}/{folder + '/':16} {count:6} objects")


if __name__ == "__main__":
    print_tasks(sys.argv[1])
    print_artifacts(sys.argv[2])
