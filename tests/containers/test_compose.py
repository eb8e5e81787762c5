"""`make up` and `make down`: Airflow, PostgreSQL and S3 in containers, on free ports."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from scripts.airflow.airflow_home import FORM_DEFAULTS, PHANTOMS
from tests.support.films import ROOT

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(900)]

SERVICES = {
    "postgres",
    "s3",
    "bucket",
    "migration",
    "api-server",
    "scheduler",
    "dag-processor",
    "triggerer",
}
SOCKET = "/var/run/docker.sock"
PROJECT = "lung-test-" + secrets.token_hex(4)
SERVING = ROOT / "artifacts" / f"airflow-up-{PROJECT}" / "serving.json"
SMALL = {
    "SOURCE": "synthetic://phantoms?films=24&seed=0",
    "SIZE": "64",
    "EPOCHS": "1",
    "NETWORK": "small",
}
# Run on the jobs' network: prints which of the addresses HOST:PORT accept a connection.
CONNECT = """
import socket, sys
for address in sys.argv[1:]:
    host, port = address.split(":")
    try:
        socket.create_connection((host, int(port)), 2).close()
        print(address)
    except OSError:
        pass
"""
# Prints what the gRPC server at HOST PORT answers to the preface of HTTP/2 without TLS.
PREFACE = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 5) as connection:
    connection.sendall(b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n" + bytes(3) + b"\\x04" + bytes(5))
    print(connection.recv(64))
"""


@pytest.fixture(scope="module")
def env_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The settings file of an Airflow that is up; after the module it and its data are removed.

    The file `printed` beside it has what `make up` printed.
    """
    path = tmp_path_factory.mktemp("compose") / ".env"
    try:
        printed = make(
            "up",
            path,
            COMPOSE_PROJECT_NAME=PROJECT,
            LUNG_AIRFLOW_PORT=free_port(),
            LUNG_S3_PORT=free_port(),
            LUNG_SCHEDULE="never",
            LUNG_MASKS_SCHEDULE="never",
            LUNG_GPUS="0",
        )
        path.with_name("printed").write_text(printed)
        yield path
    finally:
        make("down", path, VOLUMES="1")


def make(target: str, env_file: Path, **variables: str) -> str:
    process = subprocess.run(
        ["make", "--no-print-directory", target],
        cwd=ROOT,
        env=os.environ | variables | {"ENV_FILE": str(env_file)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.returncode == 0, process.stdout
    return process.stdout


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def docker(*arguments: str) -> str:
    process = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=200)
    assert process.returncode == 0, process.stderr
    return process.stdout


def left(kind: str) -> list[str]:
    """The ids of the project's containers (in any state), networks or volumes."""
    options = ["--all"] if kind == "container" else []
    label = f"label=com.docker.compose.project={PROJECT}"
    return docker(kind, "ls", "--quiet", *options, "--filter", label).split()


def containers() -> dict[str, Any]:
    """{service: its container as `docker inspect` shows it}"""
    inspected = json.loads(docker("inspect", *left("container")))
    label = "com.docker.compose.service"
    return {container["Config"]["Labels"][label]: container for container in inspected}


def addresses_of(container: Any, port: int) -> list[str]:
    return [f"{n['IPAddress']}:{port}" for n in container["NetworkSettings"]["Networks"].values()]


def serving() -> dict[str, str]:
    variables: dict[str, str] = json.loads(SERVING.read_text())
    return variables


def logged_in() -> requests.Session:
    """A session of the user whose password `make up` generated."""
    airflow, session = serving(), requests.Session()
    credentials = {"username": airflow["AIRFLOW_USER"], "password": airflow["AIRFLOW_PASSWORD"]}
    answer = session.post(f"{airflow['AIRFLOW_URL']}/auth/token", json=credentials, timeout=60)
    assert answer.ok, answer.text
    session.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
    return session


def test_every_service_is_healthy_or_has_ended_with_0(env_file: Path) -> None:
    states = {name: container["State"] for name, container in containers().items()}
    assert states.keys() == SERVICES
    exit_codes = {name: state["ExitCode"] for name, state in states.items() if not state["Running"]}
    assert exit_codes == {"bucket": 0, "migration": 0}
    healths = {states[name]["Health"]["Status"] for name in SERVICES - exit_codes.keys()}
    assert healths == {"healthy"}


def test_up_prints_the_address_the_user_and_a_password_that_log_in(env_file: Path) -> None:
    printed = env_file.with_name("printed").read_text()
    lines = dict(line.split(maxsplit=1) for line in printed.splitlines() if line.startswith("  "))
    credentials = {"username": lines["user"], "password": lines["password"]}
    answer = requests.post(f"{lines['Airflow']}/auth/token", json=credentials, timeout=60)
    assert answer.ok, answer.text
    assert lines["GPUs"] == "0"


def test_up_prints_a_first_run_on_phantoms_by_the_defaults_of_run_local(env_file: Path) -> None:
    printed = env_file.with_name("printed").read_text()
    (line,) = [line.strip() for line in printed.splitlines() if "make dag-run" in line]
    make, target, *variables = shlex.split(line)
    assert (make, target) == ("make", "dag-run")
    defaults = {name: str(FORM_DEFAULTS[name.lower()]) for name in ("SIZE", "EPOCHS", "NETWORK")}
    assert dict(variable.split("=", 1) for variable in variables) == {
        "SOURCE": PHANTOMS,
        **defaults,
    }


def test_no_container_is_root_or_can_become_root_or_writes_to_its_image(env_file: Path) -> None:
    for name, container in containers().items():
        host = container["HostConfig"]
        assert container["Config"]["User"].partition(":")[0] not in ("", "0", "root"), name
        assert host["ReadonlyRootfs"] and not host["Privileged"] and not host["CapAdd"], name
        assert host["CapDrop"] == ["ALL"], name
        assert host["SecurityOpt"] == ["no-new-privileges:true"], name


def test_only_the_scheduler_has_the_engines_socket(env_file: Path) -> None:
    mounts = {
        name: [mount["Destination"] for mount in container["Mounts"]]
        for name, container in containers().items()
    }
    assert [name for name, paths in mounts.items() if SOCKET in paths] == ["scheduler"]


def test_only_airflow_and_s3_have_published_ports_and_only_on_127_0_0_1(env_file: Path) -> None:
    published = {
        name: {binding["HostIp"] for bindings in ports.values() for binding in bindings or ()}
        for name, container in containers().items()
        if any((ports := container["NetworkSettings"]["Ports"]).values())
    }
    assert published == {"api-server": {"127.0.0.1"}, "s3": {"127.0.0.1"}}


def test_a_job_reaches_s3_but_neither_its_other_services_nor_airflow_nor_postgresql(
    env_file: Path,
) -> None:
    services = containers()
    # S3, master, volume and filer, and gRPC of each; of the latter S3's alone leaves loopback.
    addresses = [f"s3:{port}" for first in (8333, 18333) for port in range(first, first + 4)]
    addresses += addresses_of(services["postgres"], 5432)
    addresses += addresses_of(services["api-server"], 8080)
    command = ["run", "--rm", "--network", f"{PROJECT}_jobs", "lung-jobs:local"]
    accepted = docker(*command, "python", "-c", CONNECT, *addresses)
    assert accepted.split() == ["s3:8333", "s3:18333"]
    answered = docker(*command, "python", "-c", PREFACE, "s3", "18333")
    assert answered.split() == ["b''"]


def test_only_their_owner_reads_the_secrets_and_no_log_or_commit_has_them(env_file: Path) -> None:
    assert [path.stat().st_mode & 0o777 for path in (env_file, SERVING)] == [0o600, 0o600]
    lines = dict(line.split("=", 1) for line in env_file.read_text().splitlines() if line[0] != "#")
    private = {name: lines[name] for name in lines if name.endswith(("PASSWORD", "_KEY", "SECRET"))}
    assert len(private) == 7
    assert min(map(len, private.values())) >= 20
    logs = ""
    for container in containers().values():
        command = ["docker", "logs", container["Id"]]
        logs += subprocess.run(command, capture_output=True, text=True).stdout
    assert [name for name, value in private.items() if value in logs] == []
    check_ignore = ["git", "check-ignore", "--quiet", "docker/.env"]
    assert subprocess.run(check_ignore, cwd=ROOT).returncode == 0


def slots() -> int:
    answer = logged_in().get(f"{serving()['AIRFLOW_URL']}/api/v2/pools/gpu", timeout=60)
    count: int = answer.json()["slots"]
    return count


def test_the_pool_has_one_slot_a_gpu_and_one_without_gpus(env_file: Path) -> None:
    assert slots() == 1
    migrate(env_file, gpus=3)
    assert slots() == 3
    migrate(env_file, gpus=0)
    assert slots() == 1


def migrate(env_file: Path, *, gpus: int) -> None:
    """Run what `make up` does to the database where the engine offers that many GPUs."""
    changed = env_file.with_name(f"{gpus}-gpus")
    text = env_file.read_text()
    changed.write_text(text.replace("LUNG_GPU_COUNT=0", f"LUNG_GPU_COUNT={gpus}"))
    compose = ["docker-compose"] if shutil.which("docker-compose") else ["docker", "compose"]
    arguments = ["--env-file", str(changed), "run", "--rm", "--no-deps", "migration"]
    process = subprocess.run(
        [*compose, *arguments], cwd=ROOT / "docker", capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr


def test_a_manual_run_succeeds_and_its_report_requires_a_log_in(env_file: Path) -> None:
    process = subprocess.run(
        [ROOT / ".venv-airflow" / "bin" / "python", "-m", "scripts.airflow.dag_run"],
        cwd=ROOT,
        env=os.environ | serving() | SMALL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.returncode == 0, process.stdout
    session, airflow = logged_in(), serving()["AIRFLOW_URL"]
    dag = f"{airflow}/api/v2/dags/lung_segmentation/dagRuns"
    (run,) = session.get(dag, timeout=60).json()["dag_runs"]
    assert run["state"] == "success"
    report = f"{airflow}/training-report/dags/lung_segmentation/runs/{run['dag_run_id']}"
    assert requests.get(report, timeout=60).status_code == 401
    answer = session.get(report, timeout=60)
    assert answer.status_code == 200
    assert "<svg" in answer.text


def test_down_removes_containers_and_networks_and_keeps_the_data(env_file: Path) -> None:
    volumes = left("volume")
    make("down", env_file)
    assert left("container") == left("network") == []
    assert left("volume") == volumes != []
    assert not SERVING.exists()


def test_lost_secrets_are_not_replaced_while_their_data_exist(
    env_file: Path, tmp_path: Path
) -> None:
    process = subprocess.run(
        ["docker/compose.sh", "up"],
        cwd=ROOT,
        env=os.environ | {"ENV_FILE": str(tmp_path / ".env"), "COMPOSE_PROJECT_NAME": PROJECT},
        capture_output=True,
        text=True,
    )
    assert process.returncode != 0
    assert str(tmp_path / ".env") in process.stderr
    assert not (tmp_path / ".env").exists()


def test_down_with_volumes_removes_the_data(env_file: Path) -> None:
    make("down", env_file, VOLUMES="1")
    assert left("volume") == []
