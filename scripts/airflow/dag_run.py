"""Triggers the DAG lung_segmentation by REST, follows its tasks, and says how each ended.

usage: .venv-airflow/bin/python -m scripts.airflow.dag_run

Variables: SOURCE SIZE EPOCHS NETWORK GPUS, each optional, are params of the run;
AIRFLOW_URL, AIRFLOW_USER and AIRFLOW_PASSWORD or AIRFLOW_PASSWORD_FILE name an Airflow other than
the one that `make airflow` or `make up` started here. Exit code 0: every task is green; 1: not so;
2: a variable is refused; 69: no Airflow answers.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import requests

from scripts.airflow.airflow_home import BUCKET_URI, ROOT
from scripts.airflow.airflow_rest import Client, RefusedError
from scripts.airflow.dag_run_report import Task, name_of, print_tasks

DAG = "/dags/lung_segmentation"
WORDS = ("NETWORK",)
NUMBERS = ("SIZE", "EPOCHS", "GPUS")
ENDED = {"success", "failed"}
NOT_STARTED = {None, "scheduled", "queued"}
POLL_SECONDS = 1.0
START_ONE = "start one with `make airflow` or `make up`, or name one in AIRFLOW_URL"


class UsageError(Exception):
    """A variable does not name what it should."""


class NoAirflowError(Exception):
    """There is nothing to send the run to."""


def main() -> int:
    """Trigger one run with the variables' params and follow it."""
    place = find_airflow()
    return 0 if all(task.is_green for task in run(log_in(place), place)) else 1


def or_exit_code(command: Callable[[], int]) -> int:
    """The command's exit code, or that of what it could not do, said in a line."""
    try:
        return command()
    except (RefusedError, UsageError) as error:
        print(str(error), file=sys.stderr)
        return 2
    except (NoAirflowError, requests.RequestException) as error:
        print(str(error), file=sys.stderr)
        return 69


def find_airflow() -> dict[str, str]:
    """The environment, with what the Airflow that was started here last wrote of itself."""
    if "AIRFLOW_URL" in os.environ:
        return dict(os.environ)
    written = ROOT.glob("artifacts/airflow-*/serving.json")
    newest = sorted(written, key=lambda path: path.stat().st_mtime)[-1:]
    if not newest:
        raise NoAirflowError(f"no Airflow was started here: {START_ONE}")
    return {**os.environ, **json.loads(newest[0].read_text())}


def log_in(place: Mapping[str, str]) -> Client:
    url, user = place["AIRFLOW_URL"], place.get("AIRFLOW_USER", "admin")
    try:
        return Client(url, user, _password(place, user))
    except requests.RequestException as error:
        raise NoAirflowError(f"no Airflow answers at {url}: {START_ONE}") from error
    except RefusedError as error:
        raise UsageError(f"{url} refuses the user {user}: {error}") from error


def _password(place: Mapping[str, str], user: str) -> str:
    if "AIRFLOW_PASSWORD" in place:
        return place["AIRFLOW_PASSWORD"]
    if "AIRFLOW_PASSWORD_FILE" not in place:
        raise UsageError("AIRFLOW_PASSWORD is missing: it goes with AIRFLOW_URL and AIRFLOW_USER")
    return str(json.loads(Path(place["AIRFLOW_PASSWORD_FILE"]).read_text())[user])


def params(variables: Mapping[str, str]) -> dict[str, Any]:
    """The run's params from SOURCE, SIZE ...; UsageError where one is no number."""
    values: dict[str, Any] = {}
    if source := variables.get("SOURCE"):
        values["source"] = _visible(source, variables)
    values |= {name.lower(): variables[name] for name in WORDS if variables.get(name)}
    for name in NUMBERS:
        if text := variables.get(name):
            if not re.fullmatch(r"-?\d+", text):
                raise UsageError(f"{name} is {text!r}: it is a whole number, as in {name}=16")
            values[name.lower()] = int(text)
    return values


def _visible(source: str, place: Mapping[str, str]) -> str:
    """The source as containers see it: they see S3 and nothing of this machine's disk."""
    if "file://" not in source or place.get("LUNG_BACKEND") != "docker":
        return source
    python, out = ROOT / ".venv" / "bin" / "python", place.get("LUNG_BUCKET_URI", BUCKET_URI)
    copied = subprocess.run(
        [python, "-m", "jobs", "incoming", "--source", source, "--out", out],
        cwd=ROOT,
        env=dict(place),
        stdout=subprocess.PIPE,
        text=True,
    )
    if copied.returncode:
        raise UsageError(f"SOURCE={source} was not copied to S3")
    return copied.stdout.strip()


def chosen(defaults: Mapping[str, str]) -> dict[str, str]:
    """The defaults, with the variables that are set in place of their own."""
    return {name: os.environ.get(name) or default for name, default in defaults.items()}


def containers_left(place: Mapping[str, str]) -> int:
    """Say and return how many containers of this Airflow's jobs the engine still has."""
    labels = [f"label=lung.network={place['LUNG_DOCKER_NETWORK']}", "label=lung.dag"]
    filters = [word for label in labels for word in ("--filter", label)]
    listed = ["docker", "ps", "--all", "--quiet", *filters]
    left = len(subprocess.run(listed, stdout=subprocess.PIPE, check=True).stdout.split())
    print(f"containers of jobs left: {left}", flush=True)
    return left


def run(client: Client, place: Mapping[str, str]) -> list[Task]:
    """Trigger a run, follow it to its end and say how it went."""
    values = params(place)
    # A paused DAG takes a run and never starts it; `make up` leaves the DAGs paused.
    if client.get(DAG)["is_paused"]:
        client.patch(DAG, {"is_paused": False})
        print("lung_segmentation was paused and is no longer: its schedule counts from now on")
    # Without a logical date Airflow takes the same params twice.
    name = client.post(f"{DAG}/dagRuns", {"logical_date": None, "conf": values})["dag_run_id"]
    print(f"{name} {json.dumps(values)}", flush=True)
    tasks = follow(client, f"{DAG}/dagRuns/{name}")
    print()
    print_tasks(tasks)
    _print_results(tasks, f"{place['AIRFLOW_URL']}{DAG}/runs/{name}")
    return tasks


def follow(client: Client, path: str) -> list[Task]:
    """Say what becomes of each task until the run has ended; return them as they started."""
    said: dict[str, str] = {}
    ended = False
    while not ended:
        ended = client.get(path)["state"] in ENDED
        instances = client.get(f"{path}/taskInstances")["task_instances"]
        for instance in instances:
            name, state = name_of(instance["task_id"], instance["map_index"]), instance["state"]
            if state not in NOT_STARTED and said.get(name) != state:
                said[name] = state
                print(f"{time.strftime('%H:%M:%S')}  {name:16} {state}", flush=True)
        if not ended:
            time.sleep(POLL_SECONDS)
    instances.sort(key=lambda instance: instance["start_date"] or "~")
    return [_task(client, path, instance) for instance in instances]


def _task(client: Client, path: str, instance: Mapping[str, Any]) -> Task:
    place = f"{path}/taskInstances/{instance['task_id']}"
    state = instance["state"] or "not run"
    return Task(
        name=name_of(instance["task_id"], instance["map_index"]),
        state=state,
        seconds=instance["duration"] or 0.0,
        tries=instance["try_number"],
        result=_result(client, place, instance) if state == "success" else {},
        error=_error(client, place, instance) if state == "failed" else "",
    )


def _result(client: Client, place: str, instance: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the job returned, which is its XCom; nothing for a task that is no job."""
    try:
        index = instance["map_index"]
        value = client.get(f"{place}/xcomEntries/return_value", map_index=index)["value"]
    except RefusedError:
        return {}
    return value if isinstance(value, dict) else {}


def _error(client: Client, place: str, instance: Mapping[str, Any]) -> str:
    """The exception that ended the task, or the last error in its log."""
    number, index = instance["try_number"], instance["map_index"]
    log = client.get(f"{place}/logs/{number}", map_index=index, full_content="true")["content"]
    errors = [entry for entry in log if entry.get("level") in ("error", "critical")]
    for entry in reversed(errors):
        for detail in entry.get("error_detail") or []:
            return f"{detail['exc_type']}: {detail['exc_value']}"
    return str(errors[-1]["event"]) if errors else "its log holds no error"


def _print_results(tasks: Sequence[Task], page: str) -> None:
    print()
    for task in tasks:
        if manifest := task.result.get("manifest"):
            print(f"{task.name:16} {manifest}")
    print(f"{'its page':16} {page}", flush=True)


if __name__ == "__main__":
    sys.exit(or_exit_code(main))
