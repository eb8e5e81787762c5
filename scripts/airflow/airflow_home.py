"""What an Airflow on this machine is made of: its home with its secrets, its settings, its S3."""

from __future__ import annotations

import base64
import json
import os
import secrets
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, urlsplit

ROOT = Path(__file__).resolve().parents[2]
USER = "admin"
PHANTOMS = "synthetic://phantoms?films=48&seed=0"
BUCKET_URI = "s3://lung/pipeline"
SECONDS_TO_STOP = 30  # more than a leash or an S3 server takes
LINES_OF_LOG = 20


class StartError(Exception):
    """Something did not start; the message holds the end of its log."""


@contextmanager
def s3_server(backend: str, folder: Path) -> Iterator[dict[str, str]]:
    """Serve the objects kept in `folder`; yield AWS_* and, for containers, LUNG_DOCKER_NETWORK.

    The server lives as long as the standard input of the command beside it: it ends with this
    process, also where that is killed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    python, kept = str(ROOT / ".venv" / "bin" / "python"), ["--folder", str(folder)]
    beside = {
        "process": [python, "-m", "jobs", "s3", *kept, "--"],
        "docker": [str(ROOT / "docker" / "with-s3.sh"), *kept],
    }[backend]
    shell = ["sh", "-c", "env | grep -E '^(AWS_|LUNG_DOCKER_NETWORK=)'; echo; exec cat"]
    log = log_file(folder.parent, "s3")
    with log.open("w") as output:
        server = subprocess.Popen(
            [*beside, *shell],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            start_new_session=True,
            text=True,
        )
    assert server.stdin and server.stdout
    try:
        lines = iter(server.stdout.readline, "")
        pairs = (line.rstrip("\n").partition("=") for line in lines if line)
        environment = {}
        for name, separated, value in pairs:
            if not separated:
                break
            environment[name] = value
        if "AWS_ENDPOINT_URL" not in environment:
            raise StartError(f"the S3 server does not start:\n{last_lines(log)}")
        yield environment
    finally:
        server.stdin.close()
        server.wait(SECONDS_TO_STOP)
        server.stdout.close()


def settings(home: Path, *, dags: Path, backend: str, s3: Mapping[str, str]) -> dict[str, str]:
    """The environment of every Airflow process of this home, with nothing of another's, or S3's."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AIRFLOW_", "_AIRFLOW", "__AIRFLOW", "AWS_"))
        or name.startswith(("AIRFLOW_CONN_", "AIRFLOW_VAR_", "AWS_CA_BUNDLE"))
    }
    # Airflow's processes talk to each other, and to the S3 server, past any proxy.
    local = ("127.0.0.1", "localhost", urlsplit(s3["AWS_ENDPOINT_URL"]).hostname)
    proxied = inherited.get("no_proxy") or inherited.get("NO_PROXY")
    no_proxy = ",".join(filter(None, (proxied, *local)))
    private = _secrets(home)
    return {
        # A first run needs no account, and none starts by itself.
        "LUNG_SCHEDULE": "never",
        "LUNG_MASKS_SCHEDULE": "never",
        "LUNG_SOURCE": PHANTOMS,
        "LUNG_BUCKET_URI": BUCKET_URI,
        **inherited,
        **s3,
        "no_proxy": no_proxy,
        "NO_PROXY": no_proxy,
        "LUNG_BACKEND": backend,
        "PYTHONPATH": str(ROOT / "dags"),
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags.resolve()),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "dags" / "lung"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__CORE__FERNET_KEY": private["fernet_key"],
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(password_file(home)),
        "AIRFLOW__API__SECRET_KEY": private["secret_key"],
        "AIRFLOW__API_AUTH__JWT_SECRET": private["jwt_secret"],
        # Writers of SQLite wait for one another.
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{quote(str(home))}/airflow.db?timeout=60",
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "30",
        # After a killed supervisor its task is tried again this much later (seconds).
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "60",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "30",
        "AIRFLOW_CONN_LUNG_S3": connection(s3),
    }


def connection(s3: Mapping[str, str]) -> str:
    """The AWS_* of an S3 server as an Airflow connection."""
    extra = {"endpoint_url": s3["AWS_ENDPOINT_URL"], "region_name": s3["AWS_DEFAULT_REGION"]}
    return json.dumps(
        {
            "conn_type": "aws",
            "login": s3["AWS_ACCESS_KEY_ID"],
            "password": s3["AWS_SECRET_ACCESS_KEY"],
            "extra": extra,
        }
    )


def password_file(home: Path) -> Path:
    return home / "passwords.json"


def password(home: Path) -> str:
    """The user's password, made on first use."""
    return _kept(password_file(home), lambda: {USER: secrets.token_urlsafe(12)})[USER]


def _secrets(home: Path) -> dict[str, str]:
    password(home)
    return _kept(
        home / "secrets.json",
        lambda: {
            "fernet_key": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            "secret_key": secrets.token_hex(32),
            "jwt_secret": secrets.token_hex(32),
        },
    )


def _kept(path: Path, make: Callable[[], dict[str, str]]) -> dict[str, str]:
    """What the file holds; `make` gives it once."""
    if not path.exists():
        write_private(path, make())
    content: dict[str, str] = json.loads(path.read_text())
    return content


def write_private(path: Path, content: Mapping[str, str]) -> None:
    """Write JSON that the owner alone may read, whole or not at all."""
    partial = path.with_suffix(".partial")
    with open(os.open(partial, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as file:
        json.dump(content, file)
    partial.rename(path)


def migrate(home: Path, environment: Mapping[str, str]) -> None:
    """Make the database, or bring it to this version of Airflow; StartError if that fails."""
    log = log_file(home, "migration")
    with log.open("ab") as output:
        done = subprocess.run(
            airflow("db", "migrate"), env=environment, stdout=output, stderr=output
        )
    if done.returncode:
        raise StartError(f"Airflow's database is not ready:\n{last_lines(log)}")
    with sqlite3.connect(home / "airflow.db") as database:
        database.execute("PRAGMA journal_mode=WAL")  # readers do not wait for the writer


def log_file(home: Path, name: str) -> Path:
    """Where a process of this home writes what it says."""
    folder = home / "logs"
    folder.mkdir(exist_ok=True)
    return folder / f"{name}.log"


def airflow(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "airflow", *arguments]


def last_lines(log: Path) -> str:
    """The end of a log, and where the whole of it is."""
    lines = log.read_text(errors="replace").splitlines()
    return "\n".join([*lines[-LINES_OF_LOG:], f"(the whole log: {log})"])
