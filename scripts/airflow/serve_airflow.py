"""Serves a whole Airflow on this machine without Docker Compose, until stopped.

usage: .venv-airflow/bin/python -m scripts.airflow.serve_airflow --home FOLDER
       [--backend docker|process] [--port N] [--dags FOLDER] [-- COMMAND...]

The home keeps the database (SQLite), the logs, the secrets and the objects of an S3 server, so that
runs survive a restart. With COMMAND it serves while that runs and returns its exit code; COMMAND
finds AIRFLOW_URL, AIRFLOW_USER, AIRFLOW_PASSWORD_FILE, AIRFLOW_HOME, LUNG_* and AWS_* set.
`serving.json` in the home, which its owner alone may read, says as much while it serves.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

import requests

from scripts.airflow.airflow_home import (
    ROOT,
    SECONDS_TO_STOP,
    USER,
    StartError,
    airflow,
    last_lines,
    log_file,
    migrate,
    password,
    s3_server,
    settings,
    write_private,
)
from scripts.airflow.airflow_rest import Client, RefusedError

HOST = "127.0.0.1"
PORTS = range(8080, 8180)
COMPONENTS = {
    "api-server": ["api-server"],
    "dag-processor": ["dag-processor"],
    # Their own log servers would listen on every interface; the api-server reads the files.
    "triggerer": ["triggerer", "--skip-serve-logs"],
    "scheduler": ["scheduler", "--skip-serve-logs"],
}
SECONDS_TO_START = 180
POLL_SECONDS = 0.5
SHOWN = ("AWS_", "LUNG_", "AIRFLOW_HOME")


class Components:
    """Airflow's processes, each with its family on a leash that this process holds."""

    def __init__(self, home: Path, environment: dict[str, str]) -> None:
        self._home = home
        self._environment = environment
        self._leashes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        for name, arguments in COMPONENTS.items():
            self._leashes[name] = self._leash(name, ["--restart", *airflow(*arguments)])

    def _leash(self, name: str, command: list[str]) -> subprocess.Popen[bytes]:
        with self.log(name).open("ab") as output:
            return subprocess.Popen(
                [sys.executable, ROOT / "scripts" / "airflow" / "leash.py", *command],
                cwd=self._home,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def log(self, name: str) -> Path:
        return log_file(self._home, name)

    def check(self) -> None:
        """Raise StartError where one has ended for good."""
        for name, leash in self._leashes.items():
            if leash.poll() is not None:
                raise StartError(f"Airflow's {name} ended: {last_lines(self.log(name))}")

    def stop(self) -> None:
        """The api-server last: it hears from tasks how they ended."""
        for names in (["scheduler", "dag-processor", "triggerer"], ["api-server"]):
            ending = [self._leashes[name] for name in names if name in self._leashes]
            for leash in ending:
                assert leash.stdin
                leash.stdin.close()
            for leash in ending:
                leash.wait(SECONDS_TO_STOP)


@contextmanager
def serving(
    home: Path, *, backend: str, dags: Path, port: int | None
) -> Iterator[tuple[Components, dict[str, str]]]:
    """Serve Airflow from `home`; yield its components and the environment for what uses it."""
    url = f"http://{HOST}:{_free_port(port)}"
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(home), s3_server(backend, home / "s3") as s3:
        environment = settings(home, dags=dags, backend=backend, s3=s3) | _addresses(url)
        components = Components(home, environment)
        try:
            (home / "serving.json").unlink(missing_ok=True)  # of one that was killed
            print(f"Starting Airflow in {home}: about a minute", flush=True)
            migrate(home, environment)
            components.start()
            _make_pool(_wait_until_ready(components, url, home))
            shown = _shown(environment)
            write_private(home / "serving.json", shown)
            yield components, shown
        finally:
            (home / "serving.json").unlink(missing_ok=True)
            # A second Ctrl-C does not leave half of it running.
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            components.stop()


def _addresses(url: str) -> dict[str, str]:
    return {
        "AIRFLOW__API__HOST": HOST,
        "AIRFLOW__API__PORT": url.rpartition(":")[2],
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
    }


def _shown(environment: Mapping[str, str]) -> dict[str, str]:
    """What COMMAND and `serving.json` are told."""
    return {
        "AIRFLOW_URL": environment["AIRFLOW__API__BASE_URL"],
        "AIRFLOW_USER": USER,
        "AIRFLOW_PASSWORD_FILE": environment["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"],
        **{name: text for name, text in environment.items() if name.startswith(SHOWN)},
    }


def _wait_until_ready(components: Components, url: str, home: Path) -> Client:
    """Return a session once every component is healthy and the DAGs have been read."""
    deadline = time.monotonic() + SECONDS_TO_START
    client, missing = None, "api-server"
    while missing:
        components.check()
        if time.monotonic() > deadline:
            raise StartError(
                f"Airflow's {missing} is not ready after {SECONDS_TO_START} s: "
                + last_lines(components.log(missing))
            )
        time.sleep(POLL_SECONDS)
        with suppress(requests.RequestException, RefusedError):
            client = client or Client(url, USER, password(home))
            missing = _missing(client)
    assert client
    return client


def _missing(client: Client) -> str:
    """The first component that is not ready yet, or nothing."""
    health = client.get("/monitor/health")
    for part in ("scheduler", "triggerer", "dag_processor"):
        if health[part]["status"] != "healthy":
            return part.replace("_", "-")
    read = client.get("/dags")["total_entries"] + client.get("/importErrors")["total_entries"]
    return "" if read else "dag-processor"


def _make_pool(client: Client) -> None:
    """One training at a time: two on one GPU would fail for memory."""
    pool = {"name": "gpu", "slots": 1, "description": "One training at a time"}
    try:
        client.post("/pools", pool)
    except RefusedError as error:
        if error.status != 409:  # it is there, perhaps with the slots that a person gave it
            raise


@contextmanager
def _locked(home: Path) -> Iterator[None]:
    with (home / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StartError(f"another Airflow serves {home}: stop that one first") from error
        yield


def _free_port(wanted: int | None) -> int:
    """The wanted port, 0 being any, or else the first free one; StartError where that is taken."""
    for port in PORTS if wanted is None else [wanted]:
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            free: int = probe.getsockname()[1]
            return free
    taken = f"port {wanted} is taken" if wanted else f"ports {PORTS[0]} to {PORTS[-1]} are taken"
    raise StartError(f"{taken}: name another one, as in PORT=9080")


def serve(components: Components, shown: dict[str, str]) -> int:
    """Say where Airflow is and keep it until this process is stopped."""
    secret = password(Path(shown["AIRFLOW_HOME"]))
    print(f"\n  Airflow   {shown['AIRFLOW_URL']}\n  user      {USER}\n  password  {secret}")
    print(f"  backend   {shown['LUNG_BACKEND']}\n  kept in   {shown['AIRFLOW_HOME']}")
    print("\nCtrl-C stops it", flush=True)
    while True:
        components.check()
        time.sleep(POLL_SECONDS)


def beside(shown: dict[str, str], command: list[str]) -> int:
    """Run the command on a leash of its own and return its exit code."""
    leash = [sys.executable, str(ROOT / "scripts" / "airflow" / "leash.py")]
    with subprocess.Popen(
        [*leash, *command],
        env=os.environ | shown,
        stdin=subprocess.PIPE,
        start_new_session=True,
    ) as running:
        return running.wait()


def until_stopped(command: Callable[[], int]) -> int:
    """The command's exit code; 69 where Airflow does not start, 130 where a signal stops it."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    try:
        return command()
    except StartError as error:
        print(f"Airflow: {error}", file=sys.stderr)
        return 69
    except KeyboardInterrupt:
        return 130


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--backend", choices=["docker", "process"], default="process")
    parser.add_argument("--port", type=int, help=f"0: any; default: the first free from {PORTS[0]}")
    parser.add_argument("--dags", type=Path, default=ROOT / "dags")
    parser.add_argument("command", nargs="*", metavar="COMMAND")
    chosen = parser.parse_args()
    home = chosen.home.resolve()
    with serving(home, backend=chosen.backend, dags=chosen.dags, port=chosen.port) as (
        components,
        shown,
    ):
        return beside(shown, chosen.command) if chosen.command else serve(components, shown)


if __name__ == "__main__":
    sys.exit(until_stopped(main))
