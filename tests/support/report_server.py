"""An api-server with a run's tabs, its database and the run's objects in S3."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from jobs.reports.svg import picture
from jobs.storage.s3 import Store
from tests.support.airflow_tasks import ROOT, connection_of

DAG = "lung_segmentation"
RUN = "manual__2026-11-23T00:00:00+00:00"
FOLDER = "manual__2026-11-23T00-00-00-00-00"
FINGERPRINT = "0123456789abcdef"
# {user: role}; the stranger has none.
USERS = {"reader": "viewer", "admin": "admin", "stranger": ""}
SECONDS_TO_START = 120
HISTORY = [
    {
        "epoch": epoch,
        "train_loss": 0.6 / epoch,
        "val_loss": 0.7 / epoch,
        "val_dice": val_dice,
        "learning_rate": 0.003,
        "seconds": 1.5,
        "all_lung_loss": 0.6,
    }
    for epoch, val_dice in enumerate((0.4, 0.7, 0.9, 0.85), start=1)
]


class Served:
    """An api-server, its database, and the S3 prefix that it reads."""

    def __init__(self, home: Path, url: str, store: Store, out: str, connection: str) -> None:
        self.home, self.url, self.store, self.out = home, url, store, out
        self._connection = json.loads(connection)
        self._tokens: dict[str, str] = {}

    def get(self, run_id: str = RUN, *, dag: str = DAG, user: str = "reader", tab: str = "") -> Any:
        """The answer to a tab's request, with the user's session cookie; `tab` may be masks/."""
        cookies = {"_token": self.token(user)} if user else {}
        path = f"/training-report/{tab}dags/{dag}/runs/{run_id}"
        return self.call("GET", path, cookies=cookies)

    def call(self, method: str, path: str, **options: Any) -> Any:
        import requests

        request = requests.Request(method, self.url + path, **options).prepare()
        request.url = self.url + path  # unchanged: requests would resolve "../"
        with requests.Session() as session:
            return session.send(request, timeout=60)

    def token(self, user: str) -> str:
        if user not in self._tokens:
            answer = self.call(
                "POST", "/auth/token", json={"username": user, "password": f"password of {user}"}
            )
            self._tokens[user] = answer.json()["access_token"]
        return self._tokens[user]

    def connect(self, **changes: Any) -> None:
        """Define the connection `lung_s3` in Airflow's database, with `changes` to its fields."""
        self.disconnect()
        content = {**self._connection, "connection_id": "lung_s3", **changes}
        content["extra"] = json.dumps(content["extra"])
        answer = self.call("POST", "/api/v2/connections", json=content, headers=self._as_admin())
        assert answer.status_code == 201, answer.text

    def disconnect(self) -> None:
        self.call("DELETE", "/api/v2/connections/lung_s3", headers=self._as_admin())

    def _as_admin(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token('admin')}"}

    def run(self, run_id: str, state: str, *, dag: str = DAG, **tasks: str) -> None:
        """Write a run and its tasks' states to Airflow's database, in place of an older one."""
        now = "2026-11-23 00:00:00"
        with contextlib.closing(sqlite3.connect(self.home / "airflow.db", timeout=30)) as database:
            for table in ("xcom", "log", "task_instance", "dag_run"):
                database.execute(
                    f"delete from {table} where dag_id = ? and run_id = ?", (dag, run_id)
                )
            database.execute(
                "insert into dag_run (dag_id, run_id, run_type, run_after, state)"
                " values (?, ?, 'manual', ?, ?)",
                (dag, run_id, now, state),
            )
            database.executemany(
                "insert into task_instance (id, task_id, dag_id, run_id, try_number, pool,"
                " pool_slots, state) values (?, ?, ?, ?, 1, 'default_pool', 1, ?)",
                [
                    (uuid.uuid4().hex, task, dag, run_id, task_state)
                    for task, task_state in tasks.items()
                ],
            )
            database.commit()

    def add_try(
        self,
        task: str,
        error: Any = None,
        *,
        state: str = "failed",
        number: int = 3,
        shard: int = 0,
        was_lost: bool = False,
        dag: str = DAG,
    ) -> None:
        """Write the last of three tries of a task of RUN, as Airflow leaves it after its failure.

        `error` is the value of its XCom, None: without one; `shard` is from 1; `was_lost` writes
        the scheduler's entry of the audit log.
        """
        now, map_index = "2026-11-23 00:00:00", shard - 1
        key = (dag, RUN, task, map_index)
        with contextlib.closing(sqlite3.connect(self.home / "airflow.db", timeout=30)) as database:
            database.execute(
                "insert into task_instance (id, dag_id, run_id, task_id, map_index, try_number,"
                " max_tries, pool, pool_slots, state, start_date, end_date)"
                " values (?, ?, ?, ?, ?, ?, 2, 'default_pool', 1, ?, ?, ?)",
                (uuid.uuid4().hex, *key, number, state, now, now),
            )
            if error is not None:
                database.execute(
                    "insert into xcom (dag_run_id, dag_id, run_id, task_id, map_index, key, value,"
                    " timestamp) select id, ?, ?, ?, ?, 'error', ?, ? from dag_run"
                    " where dag_id = ? and run_id = ?",
                    (*key, json.dumps(error), now, dag, RUN),
                )
            if was_lost:
                database.execute(
                    "insert into log (dttm, dag_id, run_id, task_id, map_index, try_number, event,"
                    " extra) values (?, ?, ?, ?, ?, ?, 'heartbeat timeout', ?)",
                    (now, *key, number, "Task did not emit heartbeat within time limit (300 s)"),
                )
            database.commit()

    def write_training(self, count: int, epochs: int, **step: Any) -> None:
        """Write what train has written to S3 after `count` of `epochs` epochs, and in a `step`."""
        folder = f"{self.out}/trained/{FINGERPRINT}"
        pointer = {"trained": folder, "epochs": epochs} | ({"step": step} if step else {})
        self.store.write_json(f"{self.out}/runs/{FOLDER}/train.json", pointer)
        for name in ("history.json", "curves.svg"):
            self.store.delete([f"{folder}/{name}"])
        if count:
            self.store.write_json(f"{folder}/history.json", {"epochs": HISTORY[:count]})
            self.store.write(f"{folder}/curves.svg", picture(HISTORY[:count], epochs))


@contextlib.contextmanager
def api_server(home: Path, s3: Mapping[str, str]) -> Iterator[Served]:
    """An api-server with the plugin, logins for USERS and the connection `lung_s3`."""
    passwords = {user: f"password of {user}" for user in USERS}
    (home / "passwords.json").write_text(json.dumps(passwords))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    url, out = f"http://127.0.0.1:{port}", f"s3://lung/{uuid.uuid4().hex}"
    users = ",".join(f"{user}:{role}" for user, role in USERS.items())
    environment = {
        **{name: value for name, value in os.environ.items() if "AIRFLOW" not in name},
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "dags" / "lung"),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": users,
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API_AUTH__JWT_SECRET": uuid.uuid4().hex * 2,
        "PYTHONPATH": str(ROOT / "dags"),
        "LUNG_BUCKET_URI": out,
    }
    airflow = [sys.executable, "-m", "airflow"]
    migrate = [*airflow, "db", "migrate"]
    subprocess.run(migrate, env=environment, capture_output=True, check=True, timeout=120)
    with pytest.MonkeyPatch.context() as patch, (home / "log").open("wb") as log:
        for name, value in s3.items():
            patch.setenv(name, value)
        command = [*airflow, "api-server", "--host", "127.0.0.1", "--port", str(port)]
        server = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            served = Served(home, url, Store(), out, connection_of(s3))
            wait_until_it_answers(served, server)
            served.connect()
            yield served
        finally:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def wait_until_it_answers(served: Served, server: subprocess.Popen[bytes]) -> None:
    import requests

    limit = time.monotonic() + SECONDS_TO_START
    while True:
        with contextlib.suppress(requests.ConnectionError):
            served.call("GET", "/api/v2/version")
            return
        assert server.poll() is None and time.monotonic() < limit, (served.home / "log").read_text()
        time.sleep(0.3)
