"""The part of Airflow's REST API that `make dag-run` uses, on this machine, with faults to order.

with fake_airflow() as airflow:
    airflow.faults = [("/dagRuns", "503")]
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

PASSWORD = "right"
DAG = "/api/v2/dags/lung_segmentation"
# Seconds that a restart takes, and after which a hanging request is dropped.
RESTART, HANG = 0.3, 30.0


@dataclass
class FakeAirflow:
    """Runs by id with their states. A run succeeds at the second look at it unless `is_endless`.

    `faults` has (part of a request, kind): the next request that contains the first entry's part,
    such as "/dagRuns" or "POST", takes that entry.
        hang      no answer
        close     the connection ends without an answer, and nothing is done
        lost      the request is done, and the connection ends without an answer
        503, 401  an answer with that status, and nothing is done
        restart   the server is away for RESTART seconds; die: for ever
    """

    runs: dict[str, str] = field(default_factory=dict)
    triggered: list[dict[str, Any]] = field(default_factory=list)
    patches: list[tuple[str, Any]] = field(default_factory=list)
    faults: list[tuple[str, str]] = field(default_factory=list)
    is_paused: bool = False
    next_run: str | None = None
    is_endless: bool = False
    logins: int = 0
    port: int = 0
    _server: ThreadingHTTPServer | None = None
    _over: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        handler = type("Handler", (_Handler,), {"airflow": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), handler)
        self.port = self._server.server_port
        serve = self._server.serve_forever
        threading.Thread(target=serve, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        """Refuse connections from now on."""
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def close(self) -> None:
        self._over.set()
        self.stop()

    def fault(self, request: str) -> str:
        """The fault of a request such as "GET /path", or ""."""
        if not self.faults or self.faults[0][0] not in request:
            return ""
        return self.faults.pop(0)[1]

    def suffer(self, kind: str) -> None:
        if kind == "hang":
            self._over.wait(HANG)
        if kind in ("restart", "die"):
            self.stop()
        if kind == "restart":
            threading.Timer(RESTART, self.start).start()

    def respond(self, method: str, path: str, content: Any) -> tuple[int, Any]:
        """The status and the content of Airflow's answer."""
        if path == "/auth/token":
            self.logins += 1
            is_right = content["password"] == PASSWORD
            return (201, {"access_token": "t"}) if is_right else (401, {"detail": "wrong"})
        if path == DAG:
            if method == "PATCH":
                self.patches.append((path, content))
                self.is_paused = content["is_paused"]
            return 200, {"is_paused": self.is_paused, "next_dagrun_run_after": self.next_run}
        if path == f"{DAG}/dagRuns":
            return self._runs(method, content)
        run_id, _, rest = path.removeprefix(f"{DAG}/dagRuns/").partition("/")
        if run_id not in self.runs:
            return 404, {"detail": f"The DagRun with run_id: `{run_id}` was not found"}
        if rest == "taskInstances":
            return 200, {"task_instances": [_instance(self.runs[run_id])]}
        if rest.endswith("xcomEntries/return_value"):
            return 404, {"detail": "XCom entry not found"}
        state = self.runs[run_id]
        if not self.is_endless:
            self.runs[run_id] = "success"
        return 200, {"dag_run_id": run_id, "state": state}

    def _runs(self, method: str, content: Any) -> tuple[int, Any]:
        if method == "GET":
            active = [run for run, state in self.runs.items() if state in ("queued", "running")]
            return 200, {"dag_runs": [{"dag_run_id": run} for run in active]}
        self.triggered.append(content)
        run_id = content["dag_run_id"]
        if run_id in self.runs:
            return 409, {"detail": {"reason": "Unique constraint violation"}}
        self.runs[run_id] = "running"
        return 200, {"dag_run_id": run_id}


def _instance(state: str) -> dict[str, Any]:
    return {
        "task_id": "download",
        "map_index": -1,
        "state": state,
        "start_date": "2026-11-29T00:00:00Z",
        "duration": 1.5,
        "try_number": 1,
    }


class _Handler(BaseHTTPRequestHandler):
    airflow: FakeAirflow

    def do_GET(self) -> None:
        self._respond()

    def do_POST(self) -> None:
        self._respond()

    def do_PATCH(self) -> None:
        self._respond()

    def _respond(self) -> None:
        path = unquote(urlsplit(self.path).path)
        size = int(self.headers.get("Content-Length", 0))
        content = json.loads(self.rfile.read(size)) if size else None
        kind = self.airflow.fault(f"{self.command} {path}")
        self.airflow.suffer(kind)
        if kind.isdigit():
            return self._send(int(kind), {"detail": "no"})
        if kind and kind != "lost":
            return None
        status, answer = self.airflow.respond(self.command, path, content)
        return None if kind else self._send(status, answer)

    def _send(self, status: int, content: Any) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        pass


@contextmanager
def fake_airflow() -> Iterator[FakeAirflow]:
    airflow = FakeAirflow()
    airflow.start()
    try:
        yield airflow
    finally:
        airflow.close()
