"""The images on a real engine, and `make run-local` in one of them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.films import ROOT, write_montgomery

pytestmark = pytest.mark.engine

LOCAL = "lung-jobs:local"
JOBS = "lung-jobs:jobs"
# The restrictions of a job's container.
RESTRICTIONS = [
    "--rm",
    "--network=none",
    "--read-only",
    "--tmpfs=/tmp",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
]


@pytest.fixture(scope="module", autouse=True)
def engine() -> None:
    if shutil.which("docker") is None:
        pytest.skip("docker is not installed")
    for image in (LOCAL, JOBS):
        if docker("image", "inspect", image).returncode:
            pytest.skip(f"the image {image} is missing: run `make image`")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the files that `make run-local` needs, in a folder with a space in its name."""
    folder = tmp_path / "a clone"
    for name in ("jobs", "docker", "scripts"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in ("Makefile", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


def docker(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=200)


def in_container(*command: str, image: str = LOCAL, user: str = "") -> str:
    """The output of a command in a container with a job's restrictions."""
    options = [*RESTRICTIONS, "--user", user] if user else RESTRICTIONS
    process = docker("run", *options, image, *command)
    assert process.returncode == 0, process.stderr
    return process.stdout.strip()


def config_of(image: str) -> Any:
    return json.loads(docker("image", "inspect", image).stdout)[0]["Config"]


def containers() -> set[str]:
    return set(docker("ps", "--all", "--quiet", "--filter", f"ancestor={LOCAL}").stdout.split())


@pytest.mark.parametrize("image", [JOBS, LOCAL])
def test_an_image_has_labels_and_runs_as_an_unprivileged_user(image: str) -> None:
    config = config_of(image)
    assert config["User"] == "10001:10001"
    assert not config["Entrypoint"]
    labels = config["Labels"]
    assert labels["org.opencontainers.image.title"] == "lung-jobs"
    assert labels["org.opencontainers.image.licenses"] == "MIT"
    for name in ("version", "revision", "source"):
        assert labels[f"org.opencontainers.image.{name}"]


def test_the_packages_work_for_a_user_id_without_a_name() -> None:
    code = (
        "import getpass, os, boto3, cv2, jinja2, kagglehub, safetensors, torch, tqdm\n"
        "from jobs.reports.curves import draw_curves\n"
        "losses = dict(train_loss=0.2, val_loss=0.3, all_lung_loss=0.6)\n"
        "png = draw_curves([dict(epoch=1, val_dice=0.8, **losses)]); torch.ones(2).sum().item()\n"
        "print(os.getuid(), getpass.getuser() != '', png.startswith(b'\\x89PNG'))"
    )
    assert in_container("python", "-c", code, user="4321:4321") == "4321 True True"


def test_only_the_local_image_has_an_s3_server() -> None:
    assert in_container("sh", "-c", "command -v weed || echo none", image=JOBS) == "none"
    assert in_container("sh", "-c", "command -v weed", image=LOCAL) == "/opt/venv/bin/weed"


def test_the_image_holds_neither_wheels_nor_tests() -> None:
    listing = in_container("sh", "-c", "ls /app /app/jobs; ls -d /wheels 2>/dev/null || true")
    names = listing.split()
    assert {"LICENSE", "cli.py"} <= set(names)
    assert not {"tests", "dags", "/wheels"} & set(names)


def test_wrong_arguments_end_a_container_with_2() -> None:
    process = docker("run", *RESTRICTIONS, JOBS, "python", "-m", "jobs", "train", "--epochs", "x")
    assert process.returncode == 2
    assert "--epochs" in process.stderr


@pytest.mark.slow
def test_run_local_reads_a_folder_and_its_results_belong_to_the_caller(project: Path) -> None:
    films = project.parent / "films & masks"
    write_montgomery(films, 40)
    source = f"file://{project}/../{films.name}"
    before = containers()
    variables = {"SOURCE": source, "SIZE": "32", "EPOCHS": "1", "NETWORK": "small"}
    process = subprocess.run(
        ["make", "run-local", "RUNTIME=docker", "RUN_ID=here"],
        cwd=project,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    results = project / "artifacts" / "here"
    assert len(list((results / "masks").glob("*.png"))) == 40
    assert {path.stat().st_uid for path in results.rglob("*")} == {os.getuid()}
    predict_a_folder_of_links(project, sorted(films.rglob("CXR_png/*.png"))[:3])
    assert containers() == before


def predict_a_folder_of_links(project: Path, films: list[Path]) -> None:
    """The container sees the folders that the links lead to."""
    chosen = project.parent / "chosen"
    chosen.mkdir()
    for film in films:
        (chosen / film.name).symlink_to(film)
    process = subprocess.run(
        ["make", "predict", "RUNTIME=docker", f"FILMS={chosen}", "OUT=artifacts/chosen"],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    masks = (project / "artifacts/chosen/masks").iterdir()
    assert sorted(mask.name for mask in masks) == [film.name for film in films]


@pytest.mark.slow
def test_run_local_stopped_by_ctrl_c_leaves_no_container(project: Path) -> None:
    before = containers()
    process = subprocess.Popen(
        ["make", "run-local", "RUNTIME=docker"],
        cwd=project,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_until(lambda: (project / "artifacts" / ".s3" / "credentials.json").exists())
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(timeout=60) != 0
    finally:
        process.kill()
    wait_until(lambda: containers() == before)


def wait_until(condition: Any, seconds: float = 120) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, f"not within {seconds} s"
        time.sleep(0.2)
