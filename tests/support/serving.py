"""A complete Airflow for tests, served as `make airflow` serves it: scheduler, web page and REST.

with served_airflow(backend="process", dags=folder) as served:
    served.get("/dags/lung_segmentation")
    run = served.trigger("lung_segmentation", {"size": 64})
    served.wait_for_end("lung_segmentation", run, seconds=300)
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

ROOT = Path(__file__).resolve().parents[2]
AIRFLOW_PYTHON = ROOT / ".venv-airflow" / "bin" / "python"
SERVE = "scripts.airflow.serve_airflow"
SECONDS_TO_START = 240
SECONDS_TO_STOP = 45
ENDED = {"success", "failed"}


@dataclass
class Served:
    """A running Airflow. `environment` has its exported variables: AIRFLOW_*, LUNG_*, AWS_*."""

    home: Path
    environment: dict[str, str]
    process: subprocess.Popen[bytes]
    _session: requests.Session = field(default_factory=requests.Session)

    @property
    def url(self) -> str:
        return self.environment["AIRFLOW_URL"]

    @property
    def user(self) -> str:
        return self.environment["AIRFLOW_USER"]

    @property
    def password(self) -> str:
        passwords = json.loads(Path(self.environment["AIRFLOW_PASSWORD_FILE"]).read_text())
        return str(passwords[self.user])

    def token(self, password: str | None = None) -> requests.Response:
        """The answer to a log-in with `password`, the right one by default."""
        credentials = {"username": self.user, "password": password or self.password}
        return requests.post(f"{self.url}/auth/token", json=credentials, timeout=60)

    def call(self, method: str, path: str, **options: Any) -> requests.Response:
        """Airflow's answer, of any status, to the logged-in user's call below /api/v2."""
        if "Authorization" not in self._session.headers:
            token = self.token().json()["access_token"]
            self._session.headers["Authorization"] = f"Bearer {token}"
        return self._session.request(method, f"{self.url}/api/v2{path}", timeout=60, **options)

    def get(self, path: str, **query: Any) -> Any:
        return _content(self.call("GET", path, params=query))

    def post(self, path: str, content: Any) -> Any:
        return _content(self.call("POST", path, json=content))

    def patch(self, path: str, content: Any) -> Any:
        return _content(self.call("PATCH", path, json=content))

    def trigger(self, dag: str, params: Mapping[str, Any] | None = None) -> str:
        """Start a run by REST and return its id."""
        content = {"logical_date": None, "conf": dict(params or {})}
        return str(self.post(f"/dags/{dag}/dagRuns", content)["dag_run_id"])

    def tasks(self, dag: str, run: str) -> list[dict[str, Any]]:
        return list(self.get(f"/dags/{dag}/dagRuns/{run}/taskInstances")["task_instances"])

    def log(self, dag: str, run: str, task: str, *, try_number: int = 1, shard: int = -1) -> str:
        """A try's log as the web page shows it, one line per entry."""
        path = f"/dags/{dag}/dagRuns/{run}/taskInstances/{task}/logs/{try_number}"
        entries = self.get(path, map_index=shard, full_content="true")["content"]
        return "\n".join(str(entry.get("event", entry)) for entry in entries)

    def wait_for_end(self, dag: str, run: str, *, seconds: float) -> str:
        """The run's final state; AssertionError if it has not ended in time."""
        return self.wait_until(
            lambda: self.get(f"/dags/{dag}/dagRuns/{run}")["state"], ENDED, seconds=seconds
        )

    def wait_until(self, query: Any, accepted: set[Any], *, seconds: float) -> Any:
        """The value of `query()` once it is among `accepted`; AssertionError after `seconds`."""
        limit = time.monotonic() + seconds
        while (value := query()) not in accepted:
            assert time.monotonic() < limit, f"{value!r} after {seconds} s, not one of {accepted}"
            time.sleep(0.5)
        return value


def _content(answer: requests.Response) -> Any:
    assert answer.ok, f"{answer.request.method} {answer.url}: {answer.status_code} {answer.text}"
    return answer.json() if answer.content else None


@contextmanager
def served_airflow(
    *,
    backend: str = "process",
    dags: Path | None = None,
    home: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Served]:
    """Serve Airflow on free ports while the block runs, from `home` or a temporary folder.

    `environment` adds settings (LUNG_*, AIRFLOW_CONN_*) to those of this process.
    """
    with tempfile.TemporaryDirectory(prefix="lung-airflow-") as temporary:
        home = home or Path(temporary, "home")
        process = start(home, backend=backend, dags=dags, environment=environment)
        try:
            yield Served(home, wait_until_serving(home, process), process)
        finally:
            stop(process)


def start(
    home: Path,
    *,
    backend: str = "process",
    dags: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start serving and return at once; the output goes to `<home>.out`."""
    (home / "serving.json").unlink(missing_ok=True)
    command = [str(AIRFLOW_PYTHON), "-m", SERVE, "--home", str(home), "--backend", backend]
    command += ["--port", "0"]
    if dags:
        command += ["--dags", str(dags)]
    with home.with_suffix(".out").open("wb") as output:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | dict(environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def wait_until_serving(home: Path, process: subprocess.Popen[bytes]) -> dict[str, str]:
    """The exported variables of the Airflow, once all its components are healthy."""
    limit = time.monotonic() + SECONDS_TO_START
    while not (home / "serving.json").exists():
        output = home.with_suffix(".out")
        assert process.poll() is None, output.read_text()
        assert time.monotonic() < limit, output.read_text()
        time.sleep(0.2)
    exported: dict[str, str] = json.loads((home / "serving.json").read_text())
    return exported


def stop(process: subprocess.Popen[bytes]) -> float:
    """Send SIGTERM to the serving process; the seconds until it ended."""
    started = time.monotonic()
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    process.wait(SECONDS_TO_STOP)
    return time.monotonic() - started
