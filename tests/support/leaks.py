"""What is left of a task's job after its task was ended in some way, under a real scheduler.

`.venv-airflow/bin/python -m tests.support.leaks docker|process|stock` prints the table; stock
is the provider's DockerOperator, for comparison.
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

DAG_FILE = ROOT / "tests" / "leak_dag.py"
# Longer than any job may outlive its task.
SECONDS = 75
HAND, KILL = "leaks_by_hand", "leaks_by_kill"


@dataclass
class Row:
    """One case: how long the job went on, what is left, and what a person is shown."""

    case: str
    seconds: float | None  # None: it still ran when this was given up
    left: int  # containers or processes of the job, and the task's own process
    state: str
    error: str


class Jobs:
    """The jobs of the leak DAGs' tasks that there are, seen a few times a second."""

    def __init__(self, operator: str) -> None:
        self._list = list_processes if operator == "process" else list_containers
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.running: Counter[str] = Counter()
        self.there: Counter[str] = Counter()
        self.most: Counter[str] = Counter()  # at one time
        self.ended: dict[str, float] = {}

    def _watch(self) -> None:
        while not self._over.wait(0.3):
            found = self._list()
            before, self.running = self.running, Counter(task for task, runs in found if runs)
            self.there = Counter(task for task, _ in found)
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
    found = subprocess.run(
        [
            *("docker", "ps", "--all", "--no-trunc", "--filter", "label=lung.dag"),
            *("--format", '{{.Label "lung.dag"}} {{.Label "lung.task"}} {{.State}}'),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    rows = (line.split() for line in found.stdout.splitlines())
    return [(task, state == "running") for dag, task, state in rows if dag in (HAND, KILL)]


def list_processes() -> list[tuple[str, bool]]:
    found = []
    for process in psutil.process_iter():
        try:
            uri = process.environ().get("RESULT_URI", "")
        except (psutil.Error, OSError):
            continue
        if "/leaks/" in uri:
            found.append((uri.rpartition("/")[2].rpartition("-")[0], True))
    return found


def rows(served: Served, jobs: Jobs) -> list[Row]:
    """Carry out every case, those without a killed scheduler first and side by side."""
    return [*_by_hand(served, jobs), *_by_kill(served, jobs)]


def _by_hand(served: Served, jobs: Jobs) -> list[Row]:
    tasks = ("timed_out", "marked_failed", "cleared", "task_killed")
    run = served.trigger(HAND)
    _wait(lambda: all(jobs.running[task] for task in tasks), 120)
    started = {task: _instance(served, HAND, run, task) for task in tasks}
    time.sleep(3)  # the jobs are there; let them say that they are ready
    acted = dict.fromkeys(tasks, time.monotonic())
    path = f"/dags/{HAND}/dagRuns/{run}/taskInstances/marked_failed"
    served.patch(path, {"new_state": "failed"})
    _clear(served, run, "cleared")
    os.kill(started["task_killed"]["pid"], signal.SIGKILL)
    _wait(lambda: _instance(served, HAND, run, "timed_out")["state"] == "failed", 120, fails=False)
    acted["timed_out"] = time.monotonic()
    _wait(lambda: not jobs.there, SECONDS, fails=False)
    return [_row(served, jobs, HAND, run, task, acted[task]) for task in tasks]


def _by_kill(served: Served, jobs: Jobs) -> list[Row]:
    tasks = ("supervisor_killed", "both_killed", "scheduler_killed")
    run = served.trigger(KILL)
    _wait(lambda: all(jobs.running[task] for task in tasks), 120)
    task_of = {task: psutil.Process(_instance(served, KILL, run, task)["pid"]) for task in tasks}
    supervisor_of = {task: process.parent() for task, process in task_of.items()}
    time.sleep(3)
    acted = dict.fromkeys(tasks, time.monotonic())
    supervisor_of["supervisor_killed"].kill()
    supervisor_of["both_killed"].kill()
    task_of["both_killed"].kill()
    # Nobody is left to tell the scheduler, which finds it out by the heartbeats that fail to come.
    _wait_for_states(served, run, tasks[:2])
    acted["scheduler_killed"] = time.monotonic()
    supervisor_of["scheduler_killed"].parent().kill()
    _wait(lambda: not jobs.there, SECONDS, fails=False)
    _wait_for_states(served, run, tasks)
    made = [_row(served, jobs, KILL, run, task, acted[task]) for task in tasks]
    for row in made:
        row.left += _is_alive(task_of[row.case])
    return made


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
    return next(found for found in served.tasks(dag, run) if found["task_id"] == task)


def _row(served: Served, jobs: Jobs, dag: str, run: str, task: str, acted: float) -> Row:
    seconds = None if jobs.running[task] else max(0.0, jobs.ended[task] - acted)
    state = _instance(served, dag, run, task)["state"]
    return Row(task, seconds, jobs.there[task], str(state), _error(served, dag, run, task))


def _error(served: Served, dag: str, run: str, task: str) -> str:
    """What the page of the first try shows: the exception, else the last error logged."""
    path = f"/dags/{dag}/dagRuns/{run}/taskInstances/{task}/logs/1"
    shown = ""
    for entry in served.get(path, full_content="true")["content"]:
        details = entry.get("error_detail") or []
        if details:
            shown = f"{details[0]['exc_type']}: {details[0]['exc_value']}"
        elif entry.get("level") in ("error", "critical"):
            shown = shown or str(entry["event"])
    if not shown:  # nobody was left to write the log; the task's audit log has it
        events = served.get("/eventLogs", dag_id=dag, task_id=task, run_id=run)["event_logs"]
        found = [event["extra"] for event in events if event["event"] == "heartbeat timeout"]
        shown = f"heartbeat timeout: {found[0]}" if found else ""
    return shown


def _wait(is_so: Callable[[], bool], seconds: float, *, fails: bool = True) -> None:
    limit = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > limit:
            assert not fails, f"not within {seconds} s"
            return
        time.sleep(0.3)


@contextmanager
def serving(operator: str) -> Iterator[Served]:
    """An Airflow with the leak DAGs, whose tasks the operator runs."""
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
        found = subprocess.run(
            ["docker", "ps", "--all", "--quiet", "--filter", label], capture_output=True, text=True
        )
        if found.stdout:
            subprocess.run(["docker", "rm", "--force", *found.stdout.split()], capture_output=True)


def main(operator: str) -> None:
    with serving(operator) as served, Jobs(operator).watched() as jobs:
        for row in rows(served, jobs):
            lasted = "still runs" if row.seconds is None else f"{row.seconds:.0f} s"
            print(f"| {row.case} | {lasted} | {row.left} | {row.state} | {row.error} |", flush=True)
        print("at most at one time:", dict(jobs.most))


if __name__ == "__main__":
    main(sys.argv[1])
