"""Triggers the DAG lung_segmentation by REST, follows its tasks and prints how each ended.

usage: .venv-airflow/bin/python -m scripts.airflow.dag_run

Variables: SOURCE SIZE EPOCHS NETWORK GPUS, all optional, are params of the run. RUN_ID follows an
existing run instead. AIRFLOW_URL, AIRFLOW_USER and AIRFLOW_PASSWORD or AIRFLOW_PASSWORD_FILE name
an Airflow other than the one that `make airflow` or `make up` started here. Exit code 0: every task
succeeded; 1: a task did not; 2: a variable is refused; 69: no answer of Airflow for two minutes;
130: stopped by Ctrl-C or SIGTERM. The run goes on after 69 and 130.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import requests

from scripts.airflow.airflow_home import BUCKET_URI, ROOT
from scripts.airflow.airflow_rest import Client, NoAnswerError, RefusedError
from scripts.airflow.dag_run_report import Task, name_of, print_tasks
from scripts.airflow.serve_airflow import until_stopped

DAG = "/dags/lung_segmentation"
WORDS = ("NETWORK",)
NUMBERS = ("SIZE", "EPOCHS", "GPUS")
VARIABLES = ("SOURCE", *WORDS, *NUMBERS)
ENDED = {"success", "failed"}
NOT_STARTED = {None, "scheduled", "queued"}
POLL_SECONDS = 1.0
# Longer than a restart of Airflow.
PATIENCE_SECONDS = 120.0
START_ONE = "start one with `make airflow` or `make up`, or name one in AIRFLOW_URL"


class UsageError(Exception):
    """A variable has a value that is not accepted."""


class NoAirflowError(Exception):
    """No Airflow answers."""


def main() -> int:
    """Trigger one run with the variables' params, or take the run RUN_ID, and follow it."""
    environment = find_airflow()
    existing = environment.get("RUN_ID", "")
    if existing and (given := [name for name in VARIABLES if environment.get(name)]):
        raise UsageError(
            f"RUN_ID={existing} follows a run that has its params: leave out "
            f"{' and '.join(given)}, or RUN_ID to trigger a new run"
        )
    client = log_in(environment)
    values = {} if existing else params(environment)
    run_id, outlook = existing or new_run_id(), "The run goes on"
    try:
        if existing:
            find_run(client, run_id)
        else:
            outlook = "If the run was triggered, it goes on"
            trigger(client, run_id, values)
            outlook = "The run goes on"
        tasks = follow(client, environment, run_id)
    except (KeyboardInterrupt, NoAnswerError) as error:
        words = f"{error}. {outlook}" if str(error) else f"\n{outlook}"
        print(f"{words}; to follow it again: make dag-run RUN_ID={run_id}", file=sys.stderr)
        return 69 if isinstance(error, NoAnswerError) else 130
    return 0 if all(task.has_succeeded for task in tasks) else 1


def or_exit_code(command: Callable[[], int]) -> int:
    """The command's exit code; after an error its message and its code, 2 or 69."""
    try:
        return command()
    except (RefusedError, UsageError) as error:
        print(str(error), file=sys.stderr)
        return 2
    except (NoAirflowError, requests.RequestException) as error:
        print(str(error), file=sys.stderr)
        return 69


def find_airflow() -> dict[str, str]:
    """The environment, with the variables of the Airflow that was started here last.

    A set AIRFLOW_URL wins. Raises NoAirflowError where no Airflow was started.
    """
    if "AIRFLOW_URL" in os.environ:
        return dict(os.environ)
    serving_files = ROOT.glob("artifacts/airflow-*/serving.json")
    newest = sorted(serving_files, key=lambda path: path.stat().st_mtime)[-1:]
    if not newest:
        raise NoAirflowError(f"no Airflow was started here: {START_ONE}")
    return {**os.environ, **json.loads(newest[0].read_text())}


def log_in(environment: Mapping[str, str]) -> Client:
    """A session with the Airflow at AIRFLOW_URL."""
    url, user = environment["AIRFLOW_URL"], environment.get("AIRFLOW_USER", "admin")
    try:
        return Client(url, user, _password(environment, user), patience=PATIENCE_SECONDS)
    except requests.RequestException as error:
        raise NoAirflowError(f"no Airflow answers at {url}: {START_ONE}") from error
    except RefusedError as error:
        raise UsageError(f"{url} refuses the user {user}: {error}") from error


def _password(environment: Mapping[str, str], user: str) -> str:
    if "AIRFLOW_PASSWORD" in environment:
        return environment["AIRFLOW_PASSWORD"]
    if "AIRFLOW_PASSWORD_FILE" not in environment:
        raise UsageError("AIRFLOW_PASSWORD is missing: AIRFLOW_URL needs it")
    return str(json.loads(Path(environment["AIRFLOW_PASSWORD_FILE"]).read_text())[user])


def params(environment: Mapping[str, str]) -> dict[str, Any]:
    """The run's params from SOURCE, SIZE ...; UsageError where a number is not one."""
    values: dict[str, Any] = {}
    if source := environment.get("SOURCE"):
        values["source"] = _reachable(source, environment)
    values |= {name.lower(): environment[name] for name in WORDS if environment.get(name)}
    for name in NUMBERS:
        if text := environment.get(name):
            if not re.fullmatch(r"-?\d+", text):
                raise UsageError(f"{name} is {text!r}: it is a whole number, as in {name}=16")
            values[name.lower()] = int(text)
    return values


def _reachable(source: str, environment: Mapping[str, str]) -> str:
    """The source, copied to S3 where it is on this machine's disk and the jobs are containers."""
    if "file://" not in source or environment.get("LUNG_BACKEND") != "docker":
        return source
    python, out = ROOT / ".venv" / "bin" / "python", environment.get("LUNG_BUCKET_URI", BUCKET_URI)
    copy = subprocess.run(
        [python, "-m", "jobs", "incoming", "--source", source, "--out", out],
        cwd=ROOT,
        env=dict(environment),
        stdout=subprocess.PIPE,
        text=True,
    )
    if copy.returncode:
        raise UsageError(f"SOURCE={source} was not copied to S3")
    return copy.stdout.strip()


def with_defaults(defaults: Mapping[str, str]) -> dict[str, str]:
    """The variables that `defaults` names: their values, or their defaults where unset or empty."""
    return {name: os.environ.get(name) or default for name, default in defaults.items()}


def containers_left(environment: Mapping[str, str]) -> int:
    """Print and return how many containers of this Airflow's jobs the engine still has."""
    network = f"label=lung.network={environment['LUNG_DOCKER_NETWORK']}"
    filters = ["--filter", network, "--filter", "label=lung.dag"]
    command = ["docker", "ps", "--all", "--quiet", *filters]
    count = len(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout.split())
    print(f"containers of jobs left: {count}", flush=True)
    return count


def run(client: Client, environment: Mapping[str, str]) -> list[Task]:
    """Trigger a run, follow it to its end and print its tasks and their manifests."""
    run_id = new_run_id()
    trigger(client, run_id, params(environment))
    return follow(client, environment, run_id)


def new_run_id() -> str:
    """An id as Airflow makes them; one that is known beforehand can be asked for again."""
    return f"manual__{datetime.now(UTC).isoformat()}"


def trigger(client: Client, run_id: str, values: Mapping[str, Any]) -> None:
    """Unpause the DAG, trigger the run, and print what it waits for."""
    # A run of a paused DAG stays queued; `make up` leaves the DAGs paused.
    if client.get(DAG)["is_paused"]:
        dag = client.patch(DAG, {"is_paused": False})
        print(f"lung_segmentation was paused and is unpaused now: {_schedule(dag)}")
    active = client.get(f"{DAG}/dagRuns", state=["queued", "running"], limit=1)["dag_runs"]
    # Airflow refuses a second run with the same logical date.
    content = {"dag_run_id": run_id, "logical_date": None, "conf": values}
    try:
        client.post(f"{DAG}/dagRuns", content)
    except RefusedError as error:
        # The run exists: an attempt whose answer was lost has made it.
        if error.status != 409:
            raise
    print(f"{run_id} {json.dumps(values)}", flush=True)
    if active:
        print(f"It waits for {active[0]['dag_run_id']}: one run at a time", flush=True)


def _schedule(dag: Mapping[str, Any]) -> str:
    """When the scheduler starts the DAG's next run, in words."""
    if not dag["next_dagrun_run_after"]:
        return "it has no schedule, runs start when they are triggered"
    tick = datetime.fromisoformat(dag["next_dagrun_run_after"])
    date = f"{tick.astimezone(UTC):%A %Y-%m-%d %H:%M} UTC"
    if tick > datetime.now(UTC):
        return f"its next scheduled run is on {date}"
    return f"its scheduled run of {date}, missed in the pause, starts now, before this one"


def find_run(client: Client, run_id: str) -> None:
    """Print the state of the run; UsageError if it does not exist."""
    try:
        state = client.get(_path(run_id))["state"]
    except RefusedError as error:
        if error.status != 404:
            raise
        raise UsageError(
            f"RUN_ID={run_id}: lung_segmentation has no such run; without RUN_ID a run is triggered"
        ) from None
    is_held = state not in ENDED and client.get(DAG)["is_paused"]
    print(f"{run_id} is {state}{', until the DAG is unpaused' * is_held}", flush=True)


def follow(client: Client, environment: Mapping[str, str], run_id: str) -> list[Task]:
    """Print the run's progress to its end, then its tasks and their manifests."""
    tasks = _watch(client, _path(run_id))
    print()
    print_tasks(tasks)
    _print_manifests(tasks, f"{environment['AIRFLOW_URL']}{DAG}/runs/{run_id}")
    return tasks


def _path(run_id: str) -> str:
    return f"{DAG}/dagRuns/{quote(run_id, safe='')}"


def _watch(client: Client, path: str) -> list[Task]:
    """Print each change of a task's state until the run has ended; the tasks in order of start."""
    printed: dict[str, str] = {}
    ended = False
    while not ended:
        # Read before the tasks: the last round then has their final states.
        ended = client.get(path)["state"] in ENDED
        instances = client.get(f"{path}/taskInstances")["task_instances"]
        for instance in instances:
            name, state = name_of(instance["task_id"], instance["map_index"]), instance["state"]
            if state not in NOT_STARTED and printed.get(name) != state:
                printed[name] = state
                print(f"{time.strftime('%H:%M:%S')}  {name:16} {state}", flush=True)
        if not ended:
            time.sleep(POLL_SECONDS)
    # "~" sorts after every date.
    instances.sort(key=lambda instance: instance["start_date"] or "~")
    return [_task(client, path, instance) for instance in instances]


def _task(client: Client, run_path: str, instance: Mapping[str, Any]) -> Task:
    path = f"{run_path}/taskInstances/{instance['task_id']}"
    state = instance["state"] or "not run"
    return Task(
        name=name_of(instance["task_id"], instance["map_index"]),
        state=state,
        seconds=instance["duration"] or 0.0,
        tries=instance["try_number"],
        result=_result(client, path, instance) if state == "success" else {},
        error=_error(client, path, instance) if state == "failed" else "",
    )


def _result(client: Client, path: str, instance: Mapping[str, Any]) -> Mapping[str, Any]:
    """The job's result, from the task's XCom; {} for a task that runs no job."""
    try:
        index = instance["map_index"]
        value = client.get(f"{path}/xcomEntries/return_value", map_index=index)["value"]
    except RefusedError:
        return {}
    return value if isinstance(value, dict) else {}


def _error(client: Client, path: str, instance: Mapping[str, Any]) -> str:
    """The exception that ended the task, or the last error in its log."""
    number, index = instance["try_number"], instance["map_index"]
    log = client.get(f"{path}/logs/{number}", map_index=index, full_content="true")["content"]
    errors = [entry for entry in log if entry.get("level") in ("error", "critical")]
    for entry in reversed(errors):
        for detail in entry.get("error_detail") or []:
            return f"{detail['exc_type']}: {detail['exc_value']}"
    return str(errors[-1]["event"]) if errors else "its log holds no error"


def _print_manifests(tasks: Sequence[Task], page: str) -> None:
    print()
    for task in tasks:
        if manifest := task.result.get("manifest"):
            print(f"{task.name:16} {manifest}")
    print(f"{'page of the run':16} {page}", flush=True)


if __name__ == "__main__":
    sys.exit(until_stopped(lambda: or_exit_code(main)))
