"""`make up` and `make down`: Airflow, PostgreSQL and S3 in containers, on a test's own ports."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support.films import ROOT

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(900)]

SERVICES = {"postgres", "s3", "bucket", "migration"}
SERVICES |= {"api-server", "scheduler", "dag-processor", "triggerer"}
SOCKET = "/var/run/docker.sock"
PROJECT = "lung-test-" + secrets.token_hex(4)
SERVING = ROOT / "artifacts" / f"airflow-up-{PROJECT}" / "serving.json"
SMALL = {
    "SOURCE": "synthetic://phantoms?films=24&seed=0",
    "SIZE": "64",
    "EPOCHS": "1",
    "NETWORK": "small",
}
# From where a job runs: which of these addresses, HOST:PORT, accept a connection?
KNOCK = """
import socket, sys
for address in sys.argv[1:]:
    host, port = address.split(":")
    try:
        socket.create_connection((host, int(port)), 2).close()
        print(address)
    except OSError:
        pass
"""


@pytest.fixture(scope="module")
def env_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The settings of an Airflow that is up; it is down, and its data gone, after the module."""
    path = tmp_path_factory.mktemp("compose") / ".env"
    try:
        make(
            "up",
            path,
            COMPOSE_PROJECT_NAME=PROJECT,
            LUNG_AIRFLOW_PORT=free_port(),
            LUNG_S3_PORT=free_port(),
            LUNG_SCHEDULE="never",
            LUNG_MASKS_SCHEDULE="never",
        )
        yield path
    finally:
        make("down", path, VOLUMES="1")


def make(target: str, env_file: Path, **variables: str) -> str:
    done = subprocess.run(
        ["make", "--no-print-directory", target],
        cwd=ROOT,
        env=os.environ | variables | {"ENV_FILE": str(env_file)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return done.stdout


def left(kind: str) -> list[str]:
    """The project's containers, networks or volumes, whatever state they are in."""
    everything = ["--all"] if kind == "container" else []
    label = f"label=com.docker.compose.project={PROJECT}"
    return docker(kind, "ls", "--quiet", *everything, "--filter", label).split()


def containers() -> dict[str, Any]:
    """What the engine knows of each service's container."""
    found = json.loads(docker("inspect", *left("container")))
    return {one["Config"]["Labels"]["com.docker.compose.service"]: one for one in found}


def address_of(container: Any, port: int) -> list[str]:
    return [f"{n['IPAddress']}:{port}" for n in container["NetworkSettings"]["Networks"].values()]


def serving() -> dict[str, str]:
    shown: dict[str, str] = json.loads(SERVING.read_text())
    return shown


def logged_in() -> requests.Session:
    """A session of the user whose password `make up` generated."""
    place, session = serving(), requests.Session()
    given = {"username": place["AIRFLOW_USER"], "password": place["AIRFLOW_PASSWORD"]}
    answer = session.post(f"{place['AIRFLOW_URL']}/auth/token", json=given, timeout=60)
    assert answer.ok, answer.text
    session.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
    return session


def test_every_service_is_up_and_healthy_and_what_ends_has_ended_well(env_file: Path) -> None:
    found = {name: one["State"] for name, one in containers().items()}
    assert found.keys() == SERVICES
    ended = {name: state["ExitCode"] for name, state in found.items() if not state["Running"]}
    assert ended == {"bucket": 0, "migration": 0}
    healths = {found[name]["Health"]["Status"] for name in SERVICES - ended.keys()}
    assert healths == {"healthy"}


def test_no_container_is_root_or_can_become_it_or_writes_to_its_image(env_file: Path) -> None:
    for name, one in containers().items():
        host = one["HostConfig"]
        assert one["Config"]["User"].partition(":")[0] not in ("", "0", "root"), name
        assert host["ReadonlyRootfs"] and not host["Privileged"] and not host["CapAdd"], name
        assert host["CapDrop"] == ["ALL"], name
        assert host["SecurityOpt"] == ["no-new-privileges:true"], name


def test_only_the_scheduler_has_the_engines_socket(env_file: Path) -> None:
    mounts = {
        name: [mount["Destination"] for mount in one["Mounts"]]
        for name, one in containers().items()
    }
    assert [name for name, places in mounts.items() if SOCKET in places] == ["scheduler"]


def test_only_this_machine_reaches_airflow_and_s3_and_nothing_else_is_published(
    env_file: Path,
) -> None:
    published = {
        name: {binding["HostIp"] for bindings in ports.values() for binding in bindings or ()}
        for name, one in containers().items()
        if any((ports := one["NetworkSettings"]["Ports"]).values())
    }
    assert published == {"api-server": {"127.0.0.1"}, "s3": {"127.0.0.1"}}


def test_a_job_reaches_s3_and_neither_what_is_behind_it_nor_airflow_nor_postgresql(
    env_file: Path,
) -> None:
    found = containers()
    asked = [
        *("s3:8333", "s3:8888", "s3:9333", "s3:8080"),
        *address_of(found["postgres"], 5432),
        *address_of(found["api-server"], 8080),
    ]
    network = ("--network", f"{PROJECT}_jobs")
    answers = docker("run", "--rm", *network, "lung-jobs:local", "python", "-c", KNOCK, *asked)
    assert answers.split() == ["s3:8333"]


def test_the_secrets_are_for_their_owner_alone_and_in_no_log_and_not_in_git(env_file: Path) -> None:
    assert [path.stat().st_mode & 0o777 for path in (env_file, SERVING)] == [0o600, 0o600]
    lines = dict(line.split("=", 1) for line in env_file.read_text().splitlines() if line[0] != "#")
    hidden = {name: lines[name] for name in lines if name.endswith(("PASSWORD", "_KEY", "SECRET"))}
    assert len(hidden) == 7
    assert min(map(len, hidden.values())) >= 20
    logs = "".join(
        subprocess.run(["docker", "logs", one["Id"]], capture_output=True, text=True).stdout
        for one in containers().values()
    )
    assert [name for name, value in hidden.items() if value in logs] == []
    ignored = ["git", "check-ignore", "--quiet", "docker/.env"]
    assert subprocess.run(ignored, cwd=ROOT).returncode == 0


def test_the_pool_of_training_has_one_slot(env_file: Path) -> None:
    answer = logged_in().get(f"{serving()['AIRFLOW_URL']}/api/v2/pools/gpu", timeout=60)
    assert answer.json()["slots"] == 1


def test_a_run_by_hand_ends_green_and_its_report_is_for_those_who_are_logged_in(
    env_file: Path,
) -> None:
    done = subprocess.run(
        [ROOT / ".venv-airflow" / "bin" / "python", "-m", "scripts.airflow.dag_run"],
        cwd=ROOT,
        env=os.environ | serving() | SMALL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    session, airflow = logged_in(), serving()["AIRFLOW_URL"]
    dag = f"{airflow}/api/v2/dags/lung_segmentation/dagRuns"
    (run,) = session.get(dag, timeout=60).json()["dag_runs"]
    assert run["state"] == "success"
    report = f"{airflow}/training-report/dags/lung_segmentation/runs/{run['dag_run_id']}"
    assert requests.get(report, timeout=60).status_code == 401
    shown = session.get(report, timeout=60)
    assert shown.status_code == 200
    assert "<svg" in shown.text


def test_down_leaves_no_container_and_no_network_and_keeps_the_data(env_file: Path) -> None:
    volumes = left("volume")
    make("down", env_file)
    assert left("container") == left("network") == []
    assert left("volume") == volumes != []
    assert not SERVING.exists()


def test_lost_secrets_are_not_replaced_while_their_data_are_here(
    env_file: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        ["docker/compose.sh", "up"],
        cwd=ROOT,
        env=os.environ | {"ENV_FILE": str(tmp_path / ".env"), "COMPOSE_PROJECT_NAME": PROJECT},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert str(tmp_path / ".env") in done.stderr
    assert not (tmp_path / ".env").exists()


def test_down_with_volumes_removes_the_data(env_file: Path) -> None:
    make("down", env_file, VOLUMES="1")
    assert left("volume") == []
