"""docker/image.sh builds an image once per content and leaves no image without a name.

A small Dockerfile of two stages stands in for the jobs' one, and the image has a name of its own.
"""

from __future__ import annotations

import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.films import ROOT

pytestmark = [pytest.mark.engine, pytest.mark.slow]

NAME = "lung-test-" + secrets.token_hex(4)
# Every stage has the label, by which a test tells its images from those of other builds.
DOCKERFILE = f"""\
ARG BASE_IMAGE
FROM ${{BASE_IMAGE}} AS builder
LABEL {NAME}=yes
COPY docker/requirements/jobs.lock /packages
RUN cp /packages /installed

FROM ${{BASE_IMAGE}} AS runtime
LABEL {NAME}=yes
COPY --from=builder /installed /installed
COPY jobs /jobs
RUN test ! -e /jobs/broken
ARG CONTENT
LABEL lung.content="${{CONTENT}}"
FROM runtime AS local
RUN touch /local
FROM runtime AS jobs
"""


def docker(*arguments: str) -> list[str]:
    process = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=100)
    assert process.returncode == 0, process.stderr
    return process.stdout.split()


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    for name in ("docker", "scripts"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for path in (tmp_path / "docker").glob("*.sh"):
        path.write_text(path.read_text().replace("lung-jobs", NAME))
    (tmp_path / "docker" / "wheelhouse.sh").write_text("#!/bin/sh\nmkdir -p build/wheelhouse\n")
    (tmp_path / "docker" / "jobs.Dockerfile").write_text(DOCKERFILE)
    shutil.copy(ROOT / "LICENSE", tmp_path)
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "code.py").write_text("1\n")
    yield tmp_path
    for name in docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", NAME):
        docker("image", "rm", name)
    assert labelled() == []


def labelled(*filters: str) -> list[str]:
    options = [f"--filter={condition}" for condition in (f"label={NAME}", *filters)]
    # An image is listed once for each of its names, and images of one second in any order.
    return sorted(set(docker("image", "ls", "--quiet", *options)))


def build(project: Path) -> tuple[int, str]:
    """Build both images; (exit code, what is printed to stderr)."""
    printed = ""
    for target in ("jobs", "local"):
        process = subprocess.run(
            ["docker/image.sh", target], cwd=project, capture_output=True, text=True, timeout=200
        )
        printed += process.stderr
        if process.returncode:
            return process.returncode, printed
    return 0, printed


def test_builds_with_changes_between_leave_no_image_without_a_name(project: Path) -> None:
    assert build(project)[0] == 0
    first = labelled()
    assert build(project) == (0, "")
    assert labelled() == first
    (project / "jobs" / "code.py").write_text("2\n")
    assert build(project)[0] == 0
    assert labelled() != first
    assert labelled("dangling=true") == []
    lock = project / "docker/requirements/jobs.lock"
    lock.write_text(lock.read_text() + "# changed\n")
    assert build(project)[0] == 0
    assert labelled("dangling=true") == []


def test_a_build_that_fails_leaves_none_either_and_names_its_log(project: Path) -> None:
    (project / "jobs" / "broken").write_text("")
    code, printed = build(project)
    assert code != 0
    assert printed.splitlines()[-1].endswith("build/image-jobs.log")
    assert labelled("dangling=true") == []
    (project / "jobs" / "broken").unlink()
    assert build(project)[0] == 0
    assert labelled("dangling=true") == []
