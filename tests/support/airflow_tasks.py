"""For tests of the operators: an Airflow home, a task's context and the task runner's call.

This module imports nothing of Airflow at import, so that both virtual environments can collect the
tests.
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RUN_ID = "manual__2026-11-23T00:00:00+00:00"
# From SIGTERM to SIGKILL of a task's process.
SUPERVISOR_SECONDS = 5

# Airflow reads these when it is first imported.
os.environ.setdefault("AIRFLOW_HOME", str(Path(tempfile.gettempdir(), f"lung-tests-{os.getuid()}")))
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
# `weed`, the S3 server, is in the jobs' environment and not in Airflow's.
os.environ["PATH"] += os.pathsep + str(ROOT / ".venv" / "bin")

# The start of a job's code: `end` writes the job's result.
JOB = """
import json, os, signal, subprocess, sys, time
def end(**result):
    import boto3
    bucket, key = os.environ["RESULT_URI"].removeprefix("s3://").split("/", 1)
    boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=json.dumps(result))
"""


def command(code: str) -> list[str]:
    return ["python", "-u", "-c", JOB + code]


def context(operator: Any, try_number: int = 1) -> dict[str, Any]:
    """The part of a task's context that the operators read."""
    instance = SimpleNamespace(
        dag_id="lung_segmentation",
        run_id=RUN_ID,
        task_id=operator.task_id,
        map_index=-1,
        try_number=try_number,
    )
    return {"ti": instance, "task": operator}


def execute(operator: Any, try_number: int = 1) -> Any:
    """Call `execute` as Airflow's task runner does, with its time-out and its `on_kill`."""
    from airflow.sdk.execution_time.task_runner import _run_execute_callable

    return _run_execute_callable(context(operator, try_number), operator.execute, operator)


def connection_of(s3: Mapping[str, str]) -> str:
    """The value of AIRFLOW_CONN_LUNG_S3, the connection `lung_s3` in JSON."""
    extra = {"endpoint_url": s3["AWS_ENDPOINT_URL"], "region_name": "us-east-1"}
    return json.dumps(
        {
            "conn_type": "aws",
            "login": s3["AWS_ACCESS_KEY_ID"],
            "password": s3["AWS_SECRET_ACCESS_KEY"],
            "extra": extra,
        }
    )


@contextmanager
def logged() -> Iterator[list[Any]]:
    """The log entries of the block, appended as it runs; `events` has their texts."""
    from structlog.testing import capture_logs

    with capture_logs() as entries:
        yield entries


def events(entries: list[Any]) -> list[str]:
    return [str(entry["event"]) for entry in entries]


@contextmanager
def when_logged(text: str, act: Callable[[], object]) -> Iterator[list[Any]]:
    """Capture the block's log and call `act` from a thread once an entry is `text`."""
    over = threading.Event()

    def watch(entries: list[Any]) -> None:
        while not over.wait(0.05):
            if text in events(entries):
                act()
                return

    with logged() as entries:
        watcher = threading.Thread(target=watch, args=[entries])
        watcher.start()
        try:
            yield entries
        finally:
            over.set()
            watcher.join()


@contextmanager
def killed_when_logged(
    text: str, operator: Any, first: Callable[[], object] = lambda: None
) -> Iterator[list[float]]:
    """Call `first`, then send SIGTERM to this process, once a log entry is `text`.

    Yields a list that gets the handler's seconds. As the task runner's, the handler calls `on_kill`
    and returns.
    """
    seconds: list[float] = []

    def on_term(number: int, frame: FrameType | None) -> None:
        started = time.monotonic()
        operator.on_kill()
        seconds.append(time.monotonic() - started)

    def act() -> None:
        first()
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, on_term)
    try:
        with when_logged(text, act):
            yield seconds
    finally:
        signal.signal(signal.SIGTERM, before)
