"""The home of an Airflow on this machine: its secrets, settings, database and S3 server."""

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
# The defaults of `make run-local`, which take minutes without a GPU: RUN_DEFAULTS in jobs/cli.py.
FORM_DEFAULTS = {
    "size": 256,
    "epochs": 16,
    "batch_size": 4,
    "learning_rate": 1e-2,
    "network": "small",
}
BUCKET_URI = "s3://lung/pipeline"
# More than a leash or an S3 server takes to end.
SECONDS_TO_STOP = 30
LINES_OF_LOG = 20
# The shell script beside the S3 server: prints the server's variables and an empty line, then waits
# until its standard input closes.
PRINT_SETTINGS = "env | grep -E '^(AWS_|LUNG_DOCKER_NETWORK=)'; echo; exec cat"


class StartError(Exception):
    """A component did not start; the message holds the end of its log."""


@contextmanager
def s3_server(backend: str, folder: Path) -> Iterator[dict[str, str]]:
    """Serve the objects in `folder`; yield AWS_* and, for containers, LUNG_DOCKER_NETWORK.

    The server runs until the standard input of the command beside it closes, so it also ends where
    this process is killed. Raises StartError where it does not start.
    """
    folder.mkdir(parents=True, exist_ok=True)
    python = str(ROOT / ".venv" / "bin" / "python")
    server_command = {
        "process": [python, "-m", "jobs", "s3", "--folder", str(folder), "--"],
        "docker": [str(ROOT / "docker" / "with-s3.sh"), "--folder", str(folder)],
    }[backend]
    log = log_file(folder.parent, "s3")
    with log.open("w") as output:
        server = subprocess.Popen(
            [*server_command, "sh", "-c", PRINT_SETTINGS],
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
        for name, separator, value in pairs:
            if not separator:  # the empty line after the variables
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
    """The environment of every Airflow process of this home.

    Variables of another Airflow or S3 are not inherited, except connections, variables and
    AWS_CA_BUNDLE.
    """
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AIRFLOW_", "_AIRFLOW", "__AIRFLOW", "AWS_"))
        or name.startswith(("AIRFLOW_CONN_", "AIRFLOW_VAR_", "AWS_CA_BUNDLE"))
    }
    # No proxy between Airflow's processes and the S3 server.
    local = ("127.0.0.1", "localhost", urlsplit(s3["AWS_ENDPOINT_URL"]).hostname)
    inherited_no_proxy = inherited.get("no_proxy") or inherited.get("NO_PROXY")
    no_proxy = ",".join(filter(None, (inherited_no_proxy, *local)))
    private = _secrets(home)
    return {
        # Defaults of a trial on this machine: no account needed, minutes long, no scheduled run.
        "LUNG_SCHEDULE": "never",
        "LUNG_MASKS_SCHEDULE": "never",
        "LUNG_SOURCE": PHANTOMS,
        "LUNG_FORM_DEFAULTS": json.dumps(FORM_DEFAULTS),
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
        # Seconds that one writer of SQLite waits for another.
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{quote(str(home))}/airflow.db?timeout=60",
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "30",
        # Seconds after which a task without a supervisor is retried.
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "60",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "30",
        "AIRFLOW_CONN_LUNG_S3": connection(s3),
    }


def count_gpus(setting: str, backend: str) -> int:
    """LUNG_GPUS as a number: itself, or for `all` (also empty) the GPUs that the jobs get.

    Raises StartError for another value.
    """
    command = [str(ROOT / "scripts" / "gpu-count.sh"), backend, setting]
    process = subprocess.run(command, capture_output=True, text=True)
    if process.returncode:
        raise StartError(process.stderr.strip())
    print(process.stderr, end="", file=sys.stderr)
    return int(process.stdout)


def connection(s3: Mapping[str, str]) -> str:
    """The AWS_* variables of an S3 server as an Airflow connection, in JSON."""
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
    """The user's password, generated on first use."""
    return _read_or_create(password_file(home), lambda: {USER: secrets.token_urlsafe(12)})[USER]


def _secrets(home: Path) -> dict[str, str]:
    password(home)
    return _read_or_create(
        home / "secrets.json",
        lambda: {
            "fernet_key": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            "secret_key": secrets.token_hex(32),
            "jwt_secret": secrets.token_hex(32),
        },
    )


def _read_or_create(path: Path, create: Callable[[], dict[str, str]]) -> dict[str, str]:
    """The JSON in the file, which is written from `create()` where it is missing."""
    if not path.exists():
        write_private(path, create())
    content: dict[str, str] = json.loads(path.read_text())
    return content


def write_private(path: Path, content: Mapping[str, str]) -> None:
    """Write JSON with mode 600, to a temporary name first."""
    partial = path.with_suffix(".partial")
    with open(os.open(partial, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as file:
        json.dump(content, file)
    partial.rename(path)


def migrate(home: Path, environment: Mapping[str, str]) -> None:
    """Create the database, or migrate it to this version of Airflow; StartError if that fails."""
    log = log_file(home, "migration")
    with log.open("ab") as output:
        migration = subprocess.run(
            airflow("db", "migrate"), env=environment, stdout=output, stderr=output
        )
    if migration.returncode:
        raise StartError(f"Airflow's database is not ready:\n{last_lines(log)}")
    with sqlite3.connect(home / "airflow.db") as database:
        database.execute("PRAGMA journal_mode=WAL")  # readers do not wait for the writer


def log_file(home: Path, name: str) -> Path:
    """The log of the process `name` of this home."""
    folder = home / "logs"
    folder.mkdir(exist_ok=True)
    return folder / f"{name}.log"


def airflow(*arguments: str) -> list[str]:
    """The command line of Airflow in this Python's environment."""
    return [sys.executable, "-m", "airflow", *arguments]


def last_lines(log: Path) -> str:
    """The last lines of a log, and its path."""
    lines = log.read_text(errors="replace").splitlines()
    return "\n".join([*lines[-LINES_OF_LOG:], f"(the whole log: {log})"])
