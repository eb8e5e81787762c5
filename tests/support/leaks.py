"""What is left of a job after its task was ended in some way, under a real scheduler.

`.venv-airflow/bin/python -m tests.support.leaks docker|process|stock` prints a table; stock is the
provider's DockerOperator, for comparison.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.support.serving import ROOT, Served, served_airflow

DAG_FILE = ROOT / "tests" / "support" / "leak_dag.py"
# Longer than a job may outlive its task.
SECONDS = 75
# The DAG whose tasks end by a user's action, and the one whose processes are killed.
HAND, KILL = "leaks_by_hand", "leaks_by_kill"


@dataclass
class Row:
    """One case: how long the job outlived its task, what is left, and the error that is shown."""

    case: str
    seconds: float | None  # None: the job still ran after SECONDS
    left: int  # containers or processes of the job, and the task's process
    state: str
    error: str


class Jobs:
    """The jobs of the leak DAGs' tasks, listed every 0.3 s."""

    def __init__(self, operator: str) -> None:
        self._list = list_processes if operator == "process" else list_containers
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        # Per task: jobs that run, jobs of any state, the most that ran at one time.
        self.running: Counter[str] = Counter()
        self.listed: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.ended: dict[str, float] = {}

    def _watch(self) -> None:
        while not self._over.wait(0.3):
            jobs = self._list()
            before, self.running = self.running, Counter(task for task, runs in jobs if runs)
            self.listed = Counter(task for task, _ in jobs)
            self.most |= self.running
            for task in before - self.running:
                self.ended.setdefault(task, time.monotonic())

    @contextmanager
    def watched(self) -> Iterator[Jobs]:
        self._thread.start()
        try:
            yield self
        finally:
            self._over.set()
            self._thread.join()


def list_containers() -> list[tuple[str, bool]]:
    """(task, whether it runs) of every container of the leak DAGs, dead ones too."""
    columns = '{{.Label "lung.dag"}} {{.Label "lung.task"}} {{.State}}'
    command = ["docker", "ps", "--all", "--filter", "label=lung.dag", "--format", columns]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = (line.split() for line in listing.splitlines())
    return [(task, state == "running") for dag, task, state in rows if dag in (HAND, KILL)]


def list_processes() -> list[tuple[str, bool]]:
    """(task, True) of every process of the leak DAGs' jobs."""
    jobs = []
    for process in psutil.process_iter():
        try:
            uri = process.environ().get("RESULT_URI", "")
        except (psutil.Error, OSError):
            continue
        if "/leaks/" in uri:
            jobs.append((uri.rpartition("/")[2].rpartition("-")[0], True))
    return jobs


def rows(served: Served, jobs: Jobs) -> list[Row]:
    """The rows of all cases; those without a killed scheduler come first, in parallel."""
    return [*_by_hand(served, jobs), *_by_kill(served, jobs)]


def _by_hand(served: Served, jobs: Jobs) -> list[Row]:
    tasks = ("timed_out", "marked_failed", "cleared", "task_killed")
    run = served.trigger(HAND)
    _wait(lambda: all(jobs.running[task] for task in tasks), 120)
    started = {task: _instance(served, HAND, run, task) for task in tasks}
    time.sleep(3)  # until the jobs, which run now, handle SIGTERM
    acted_at = dict.fromkeys(tasks, time.monotonic())
    path = f"/dags/{HAND}/dagRuns/{run}/taskInstances/marked_failed"
    served.patch(path, {"new_state": "failed"})
    _clear(served, run, "cleared")
    os.kill(started["task_killed"]["pid"], signal.SIGKILL)
    _wait(lambda: _instance(served, HAND, run, "timed_out")["state"] == "failed", 120, fails=False)
    acted_at["timed_out"] = time.monotonic()
    _wait(lambda: not jobs.listed, SECONDS, fails=False)
    return [_row(served, jobs, HAND, run, task, acted_at[task]) for task in tasks]


def _by_kill(served: Served, jobs: Jobs) -> list[Row]:
    tasks = ("supervisor_killed", "both_killed", "scheduler_killed")
    run = served.trigger(KILL)
    _wait(lambda: all(jobs.running[task] for task in tasks), 120)
    task_of = {task: psutil.Process(_instance(served, KILL, run, task)["pid"]) for task in tasks}
    supervisor_of = {task: process.parent() for task, process in task_of.items()}
    time.sleep(3)
    acted_at = dict.fromkeys(tasks, time.monotonic())
    supervisor_of["supervisor_killed"].kill()
    supervisor_of["both_killed"].kill()
    task_of["both_killed"].kill()
    # The scheduler notices by the missing heartbeats.
    _wait_for_states(served, run, tasks[:2])
    acted_at["scheduler_killed"] = time.monotonic()
    supervisor_of["scheduler_killed"].parent().kill()
    _wait(lambda: not jobs.listed, SECONDS, fails=False)
    _wait_for_states(served, run, tasks)
    table = [_row(served, jobs, KILL, run, task, acted_at[task]) for task in tasks]
    for row in table:
        row.left += _is_alive(task_of[row.case])
    return table


def _wait_for_states(served: Served, run: str, tasks: Sequence[str]) -> None:
    def have_ended() -> bool:
        states = {_instance(served, KILL, run, task)["state"] for task in tasks}
        return states <= {"success", "failed"}

    _wait(have_ended, 120, fails=False)


def _is_alive(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return str(process.status()) != psutil.STATUS_ZOMBIE
    return False


def _clear(served: Served, run: str, task: str) -> None:
    content = {"dry_run": False, "dag_run_id": run, "task_ids": [task], "only_failed": False}
    served.post(f"/dags/{HAND}/clearTaskInstances", content)


def _instance(served: Served, dag: str, run: str, task: str) -> dict[str, Any]:
    tasks = served.tasks(dag, run)
    return next(instance for instance in tasks if instance["task_id"] == task)


def _row(served: Served, jobs: Jobs, dag: str, run: str, task: str, acted_at: float) -> Row:
    seconds = None if jobs.running[task] else max(0.0, jobs.ended[task] - acted_at)
    state = _instance(served, dag, run, task)["state"]
    return Row(task, seconds, jobs.listed[task], str(state), _error(served, dag, run, task))


def _error(served: Served, dag: str, run: str, task: str) -> str:
    """The error on the page of the first try: the exception, else the last error logged."""
    path = f"/dags/{dag}/dagRuns/{run}/taskInstances/{task}/logs/1"
    error = ""
    for entry in served.get(path, full_content="true")["content"]:
        details = entry.get("error_detail") or []
        if details:
            error = f"{details[0]['exc_type']}: {details[0]['exc_value']}"
        elif entry.get("level") in ("error", "critical"):
            error = error or str(entry["event"])
    if not error:  # no process was left to write the log; the task's audit log has the error
        events = served.get("/eventLogs", dag_id=dag, task_id=task, run_id=run)["event_logs"]
        timeouts = [event["extra"] for event in events if event["event"] == "heartbeat timeout"]
        error = f"heartbeat timeout: {timeouts[0]}" if timeouts else ""
    return error


def _wait(condition: Callable[[], bool], seconds: float, *, fails: bool = True) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > limit:
            assert not fails, f"not within {seconds} s"
            return
        time.sleep(0.3)


@contextmanager
def serving(operator: str) -> Iterator[Served]:
    """An Airflow with the leak DAGs; `operator` is docker, process or stock."""
    settings = {"LEAKS_OPERATOR": operator, "LEAKS_HOME": str(ROOT)}
    backend = "process" if operator == "process" else "docker"
    with tempfile.TemporaryDirectory() as dags:
        shutil.copy(DAG_FILE, dags)
        with served_airflow(backend=backend, dags=Path(dags), environment=settings) as served:
            try:
                yield served
            finally:
                if operator == "stock":
                    _remove_containers()


def _remove_containers() -> None:
    for dag in (HAND, KILL):
        label = f"label=lung.dag={dag}"
        command = ["docker", "ps", "--all", "--quiet", "--filter", label]
        ids = subprocess.run(command, capture_output=True, text=True).stdout.split()
        if ids:
            subprocess.run(["docker", "rm", "--force", *ids], capture_output=True)


def main(operator: str) -> None:
    with serving(operator) as served, Jobs(operator).watched() as jobs:
        for row in rows(served, jobs):
            seconds = "still runs" if row.seconds is None else f"{row.seconds:.0f} s"
            print(
                f"| {row.case} | {seconds} | {row.left} | {row.state} | {row.error} |", flush=True
            )
        print("most jobs at one time:", dict(jobs.most))


if __name__ == "__main__":
    main(sys.argv[1])
