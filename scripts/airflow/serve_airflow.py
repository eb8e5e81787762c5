"""Serves a complete Airflow on this machine without Docker Compose, until stopped.

usage: .venv-airflow/bin/python -m scripts.airflow.serve_airflow --home FOLDER
       [--backend docker|process] [--port N] [--dags FOLDER] [-- COMMAND...]

The home keeps the database (SQLite), the logs, the secrets and the objects of an S3 server, so that
runs survive a restart. With COMMAND it serves while that runs and returns its exit code. COMMAND
gets AIRFLOW_URL, AIRFLOW_USER, AIRFLOW_PASSWORD_FILE, AIRFLOW_HOME, LUNG_* and AWS_*. The home's
`serving.json`, which only its owner may read, holds the same variables while Airflow is served.
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
    count_gpus,
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
LEASH = ROOT / "scripts" / "airflow" / "leash.py"
COMPONENTS = {
    "api-server": ["api-server"],
    "dag-processor": ["dag-processor"],
    # Their log servers would listen on every interface; the api-server reads the log files.
    "triggerer": ["triggerer", "--skip-serve-logs"],
    "scheduler": ["scheduler", "--skip-serve-logs"],
}
SECONDS_TO_START = 180
POLL_SECONDS = 0.5
# Prefixes of the variables that COMMAND and serving.json get.
EXPORTED = ("AWS_", "LUNG_", "AIRFLOW_HOME")


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
                [sys.executable, LEASH, *command],
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
        """Raise StartError where a component ended and was not restarted."""
        for name, leash in self._leashes.items():
            if leash.poll() is not None:
                raise StartError(f"Airflow's {name} ended: {last_lines(self.log(name))}")

    def stop(self) -> None:
        """Stop the api-server last: tasks report their end to it."""
        for names in (["scheduler", "dag-processor", "triggerer"], ["api-server"]):
            leashes = [self._leashes[name] for name in names if name in self._leashes]
            for leash in leashes:
                assert leash.stdin
                leash.stdin.close()
            for leash in leashes:
                leash.wait(SECONDS_TO_STOP)


@contextmanager
def serving(
    home: Path, *, backend: str, dags: Path, port: int | None
) -> Iterator[tuple[Components, dict[str, str]]]:
    """Serve Airflow from `home`; yield its components and the variables for its users."""
    url = f"http://{HOST}:{_free_port(port)}"
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(home), s3_server(backend, home / "s3") as s3:
        environment = settings(home, dags=dags, backend=backend, s3=s3) | _addresses(url)
        gpu_count = count_gpus(environment.get("LUNG_GPUS", ""), backend)
        environment["LUNG_GPUS"] = str(gpu_count)
        components = Components(home, environment)
        try:
            (home / "serving.json").unlink(missing_ok=True)  # a killed server left it
            print(f"Starting Airflow in {home}: about a minute", flush=True)
            migrate(home, environment)
            components.start()
            _set_pool(_wait_until_ready(components, url, home), slots=max(1, gpu_count))
            exported = _exported(environment)
            write_private(home / "serving.json", exported)
            yield components, exported
        finally:
            (home / "serving.json").unlink(missing_ok=True)
            # A second Ctrl-C must not interrupt the stop.
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


def _exported(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables for COMMAND and `serving.json`."""
    return {
        "AIRFLOW_URL": environment["AIRFLOW__API__BASE_URL"],
        "AIRFLOW_USER": USER,
        "AIRFLOW_PASSWORD_FILE": environment["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"],
        **{name: value for name, value in environment.items() if name.startswith(EXPORTED)},
    }


def _wait_until_ready(components: Components, url: str, home: Path) -> Client:
    """A REST client, once every component is healthy and the DAGs are parsed."""
    deadline = time.monotonic() + SECONDS_TO_START
    client, pending = None, "api-server"
    while pending:
        components.check()
        if time.monotonic() > deadline:
            raise StartError(
                f"Airflow's {pending} is not ready after {SECONDS_TO_START} s: "
                + last_lines(components.log(pending))
            )
        time.sleep(POLL_SECONDS)
        with suppress(requests.RequestException, RefusedError):
            client = client or Client(url, USER, password(home))
            pending = _pending(client)
    assert client
    return client


def _pending(client: Client) -> str:
    """The first component that is not ready, or ""."""
    health = client.get("/monitor/health")
    for component in ("scheduler", "triggerer", "dag_processor"):
        if health[component]["status"] != "healthy":
            return component.replace("_", "-")
    parsed = client.get("/dags")["total_entries"] + client.get("/importErrors")["total_entries"]
    return "" if parsed else "dag-processor"


def _set_pool(client: Client, slots: int) -> None:
    """Give the pool `gpu` a slot for each GPU, or one where the CPU trains.

    Also an existing pool: a task that asks for more slots than its pool has would never start.
    """
    pool = {"slots": slots, "description": "A slot for each GPU", "include_deferred": False}
    try:
        client.post("/pools", {"name": "gpu", **pool})
    except RefusedError as error:
        if error.status != 409:
            raise
        # The whole pool is required, of which the mask takes the slots.
        client.patch("/pools/gpu?update_mask=slots", {"pool": "gpu", **pool})


@contextmanager
def _locked(home: Path) -> Iterator[None]:
    with (home / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StartError(f"another Airflow serves {home}: stop that one first") from error
        yield


def _free_port(requested: int | None) -> int:
    """The requested port (0: any free one), or the first free one of PORTS.

    Raises StartError where it is taken.
    """
    for port in PORTS if requested is None else [requested]:
        with socket.socket() as probe, suppress(OSError):
            # A port whose connections are in TIME_WAIT counts as free, as for the api-server.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            free: int = probe.getsockname()[1]
            return free
    taken = (
        f"port {requested} is taken" if requested else f"ports {PORTS[0]} to {PORTS[-1]} are taken"
    )
    raise StartError(f"{taken}: name another one, as in PORT=9080")


def serve(components: Components, exported: dict[str, str]) -> int:
    """Print Airflow's address and serve until this process is stopped."""
    secret = password(Path(exported["AIRFLOW_HOME"]))
    print(f"\n  Airflow   {exported['AIRFLOW_URL']}\n  user      {USER}\n  password  {secret}")
    print(f"  backend   {exported['LUNG_BACKEND']}\n  GPUs      {exported['LUNG_GPUS']}")
    print(f"  data in   {exported['AIRFLOW_HOME']}")
    print("\nCtrl-C stops it", flush=True)
    while True:
        components.check()
        time.sleep(POLL_SECONDS)


def run_beside(exported: dict[str, str], command: list[str]) -> int:
    """Run COMMAND on a leash and return its exit code."""
    with subprocess.Popen(
        [sys.executable, str(LEASH), *command],
        env=os.environ | exported,
        stdin=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        return process.wait()


def until_stopped(command: Callable[[], int]) -> int:
    """The command's exit code; 69 where Airflow does not start, 130 after a signal."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        return command()
    except StartError as error:
        print(f"Airflow: {error}", file=sys.stderr)
        return 69
    except KeyboardInterrupt:
        return 130


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--backend", choices=["docker", "process"], default="process")
    parser.add_argument("--port", type=int, help=f"0: any; default: the first free from {PORTS[0]}")
    parser.add_argument("--dags", type=Path, default=ROOT / "dags")
    parser.add_argument("command", nargs="*", metavar="COMMAND")
    options = parser.parse_args()
    home = options.home.resolve()
    with serving(home, backend=options.backend, dags=options.dags, port=options.port) as (
        components,
        exported,
    ):
        if options.command:
            return run_beside(exported, options.command)
        return serve(components, exported)


if __name__ == "__main__":
    sys.exit(until_stopped(main))
