"""A whole Airflow for tests, served as `make airflow` serves it: scheduler, web page and REST.

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
SECONDS_TO_START = 240
SECONDS_TO_STOP = 45
ENDED = {"success", "failed"}


@dataclass
class Served:
    """A running Airflow. `environment` is what its COMMAND finds: AIRFLOW_*, LUNG_*, AWS_*."""

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
        """The answer to a log-in, with the right password unless one is given."""
        given = {"username": self.user, "password": password or self.password}
        return requests.post(f"{self.url}/auth/token", json=given, timeout=60)

    def call(self, method: str, path: str, **options: Any) -> requests.Response:
        """Airflow's answer to a call below /api/v2 by the logged-in user, whatever its status."""
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
        """A try's log as the web page shows it, a line an entry."""
        path = f"/dags/{dag}/dagRuns/{run}/taskInstances/{task}/logs/{try_number}"
        entries = self.get(path, map_index=shard, full_content="true")["content"]
        return "\n".join(str(entry.get("event", entry)) for entry in entries)

    def wait_for_end(self, dag: str, run: str, *, seconds: float) -> str:
        """The state that the run ends in; AssertionError if it has not ended in time."""
        return self.wait_until(
            lambda: self.get(f"/dags/{dag}/dagRuns/{run}")["state"], ENDED, seconds=seconds
        )

    def wait_until(self, ask: Any, wanted: set[Any], *, seconds: float) -> Any:
        """What `ask` returns once it is one of `wanted`."""
        limit = time.monotonic() + seconds
        while (got := ask()) not in wanted:
            assert time.monotonic() < limit, f"{got!r} after {seconds} s, not one of {wanted}"
            time.sleep(0.5)
        return got


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
    """Serve Airflow on free ports while the block runs; `home` is a temporary one unless given.

    `environment` adds settings (LUNG_*, AIRFLOW_CONN_*) to this process's own.
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
    """Start serving and return at once; what it says goes to `<home>.out`."""
    (home / "serving.json").unlink(missing_ok=True)
    with home.with_suffix(".out").open("wb") as output:
        return subprocess.Popen(
            [
                *(AIRFLOW_PYTHON, "-m", "scripts.airflow.serve_airflow"),
                *("--home", home, "--backend", backend, "--port", "0"),
                *(("--dags", dags) if dags else ()),
            ],
            cwd=ROOT,
            env=os.environ | dict(environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def wait_until_serving(home: Path, process: subprocess.Popen[bytes]) -> dict[str, str]:
    """The environment for what uses the Airflow, once all of it is healthy."""
    limit = time.monotonic() + SECONDS_TO_START
    while not (home / "serving.json").exists():
        said = home.with_suffix(".out")
        assert process.poll() is None, said.read_text()
        assert time.monotonic() < limit, said.read_text()
        time.sleep(0.2)
    shown: dict[str, str] = json.loads((home / "serving.json").read_text())
    return shown


def stop(process: subprocess.Popen[bytes]) -> float:
    """TERM to the serving process; the seconds until it had ended."""
    started = time.monotonic()
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    process.wait(SECONDS_TO_STOP)
    return time.monotonic() - started
