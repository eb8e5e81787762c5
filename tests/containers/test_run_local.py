"""scripts/run-local.sh chooses between GPUs and the CPU; stand-ins for docker, nvidia-smi, make."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.films import ROOT

NO_RUNTIME = '{"Runtimes":{"runc":{"path":"runc"}}}'
RUNTIME = '{"Runtimes":{"nvidia":{"path":"nvidia-container-runtime"},"runc":{"path":"runc"}}}'
CDI = '{"DiscoveredDevices":[{"Source":"cdi","ID":"nvidia.com/gpu=all"}],"Runtimes":{"runc":{}}}'
EIGHT = "\n".join(f"GPU {number}: NVIDIA H200 (UUID: GPU-{number})" for number in range(8))
# The engine's answer where no driver of it serves GPUs.
REFUSAL = (
    'docker: Error response from daemon: could not select device driver "" with capabilities: '
    "[[gpu]].\n\nRun 'docker run --help' for more information"
)

# Records its arguments, a line a call. `run` of torch's probe answers as the test says.
DOCKER = """
case $1 in
  info) cat "$STUBS/info" ;;
  run)
    echo "$*" >>"$STUBS/calls"
    case "$*" in *torch.cuda*) cat "$STUBS/refusal" >&2; cat "$STUBS/gpus" ;; esac ;;
esac
"""
PYTHON = """
echo "$*" >>"$STUBS/calls"
case "$*" in *torch.cuda*) cat "$STUBS/gpus" ;; esac
"""


class Run(NamedTuple):
    code: int
    out: list[str]
    error: str
    calls: list[str]


RunLocal = Callable[..., Run]


@pytest.fixture
def run_local(tmp_path: Path) -> RunLocal:
    """Runs a copy of the script beside stand-ins.

    Args: the engine's `info`; the lines of `nvidia-smi`, None without a driver; what torch's probe
    prints; the engine's `refusal`; the job; the environment's `variables`.
    """
    project, stubs = tmp_path / "a clone", tmp_path / "stubs"
    stubs.mkdir()
    shutil.copytree(ROOT / "scripts", project / "scripts")
    programs = {
        project / "docker" / "image.sh": "echo lung-jobs:local",
        project / "docker" / "user.sh": "echo 1:2",
        project / "scripts" / "torch-build.sh": 'echo "${TORCH:-cuda}"',
        project / ".venv" / "bin" / "python": PYTHON,
        stubs / "docker": DOCKER,
        stubs / "make": "",
    }

    def run(
        *,
        info: str = NO_RUNTIME,
        driver: str | None = None,
        gpus: str = "",
        refusal: str = "",
        job: str = "run",
        variables: Mapping[str, str] | None = None,
    ) -> Run:
        if driver is not None:
            programs[stubs / "nvidia-smi"] = f"cat <<'END'\n{driver}\nEND"
        for path, script in programs.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"#!/usr/bin/env bash\n{script}\n")
            path.chmod(0o755)
        for name, text in (("info", info), ("gpus", gpus), ("refusal", refusal), ("calls", "")):
            (stubs / name).write_text(text)
        process = subprocess.run(
            [project / "scripts" / "run-local.sh", job],
            env={"PATH": f"{stubs}:{os.defpath}", "HOME": str(tmp_path), "STUBS": str(stubs)}
            | dict(variables or {}),
            capture_output=True,
            text=True,
            timeout=60,
        )
        calls = (stubs / "calls").read_text().splitlines()
        return Run(process.returncode, process.stdout.splitlines(), process.stderr, calls)

    return run


@pytest.mark.parametrize("variables", [{}, {"TORCH": "cuda"}, {"TORCH": "cpu"}])
def test_a_machine_without_gpus_starts_one_container_and_says_that_it_uses_the_cpu(
    run_local: RunLocal, variables: dict[str, str]
) -> None:
    result = run_local(variables=variables)
    assert result.code == 0, result.error
    assert result.out[-1] == "Computes on the CPU"
    assert not result.error
    assert len(result.calls) == 1 and "--gpus" not in result.calls[0]


@pytest.mark.parametrize("info", [RUNTIME, CDI])
def test_an_engine_with_gpus_passes_all_and_the_first_is_named(
    run_local: RunLocal, info: str
) -> None:
    result = run_local(info=info, driver=EIGHT, gpus="8 NVIDIA H200\n")
    assert result.code == 0, result.error
    assert result.out[-1] == "Computes on 1 of 8 GPUs, NVIDIA H200 (PROCESSES=8: trains on all)"
    probe, job = result.calls[0], result.calls[-1]
    assert "--gpus all" in probe and "--gpus all" in job
    assert "python -m jobs run" in job and "--processes" not in job


def test_devices_that_the_engine_alone_knows_are_used_too(run_local: RunLocal) -> None:
    result = run_local(info=CDI, gpus="1 NVIDIA L4\n")
    assert result.out[-1] == "Computes on the GPU, NVIDIA L4"
    assert "--gpus all" in result.calls[-1]


def test_processes_and_the_choice_of_gpus_reach_the_job(run_local: RunLocal) -> None:
    variables = {"PROCESSES": "2", "CUDA_VISIBLE_DEVICES": "4,5,6"}
    result = run_local(info=RUNTIME, driver=EIGHT, gpus="3 NVIDIA H200\n", variables=variables)
    assert result.out[-1] == "Computes on 2 of 3 GPUs, NVIDIA H200"
    assert "--processes 2" in result.calls[-1]
    assert all("--env CUDA_VISIBLE_DEVICES" in call for call in (result.calls[0], result.calls[-1]))


def test_masks_get_the_gpus_too(run_local: RunLocal, tmp_path: Path) -> None:
    films = tmp_path / "films"
    films.mkdir()
    result = run_local(
        info=RUNTIME,
        driver=EIGHT,
        gpus="8 NVIDIA H200\n",
        job="masks",
        variables={"FILMS": str(films)},
    )
    assert result.code == 0, result.error
    assert result.out[-1] == "Computes on 1 of 8 GPUs, NVIDIA H200"
    assert "--gpus all" in result.calls[-1] and "python -m jobs masks" in result.calls[-1]


def test_gpus_without_the_toolkit_are_an_error_before_an_image_is_built(
    run_local: RunLocal,
) -> None:
    result = run_local(info=NO_RUNTIME, driver=EIGHT)
    assert (result.code, result.out, result.calls) == (2, [], [])
    assert len(result.error.splitlines()) == 1
    for words in ("container toolkit", "docs/gpu-node.md", "RUNTIME=process", "TORCH=cpu"):
        assert words in result.error


def test_an_engine_that_refuses_is_one_line_with_its_words_and_the_remedy(
    run_local: RunLocal,
) -> None:
    result = run_local(info=RUNTIME, driver=EIGHT, refusal=REFUSAL)
    assert result.code == 2
    assert len(result.error.splitlines()) == 1
    assert "could not select device driver" in result.error
    assert "docs/gpu-node.md" in result.error and "TORCH=cpu" in result.error
    assert not any("-m jobs" in call for call in result.calls), "no silent run on the CPU"


def test_an_engine_that_ignores_the_request_is_an_error_too(run_local: RunLocal) -> None:
    result = run_local(info=RUNTIME, driver=EIGHT)
    assert (result.code, len(result.error.splitlines())) == (2, 1)
    assert "PyTorch reaches none: see docs/gpu-node.md" in result.error


@pytest.mark.parametrize(
    "variables", [{"TORCH": "cpu"}, {"CUDA_VISIBLE_DEVICES": ""}, {"CUDA_VISIBLE_DEVICES": "-1"}]
)
def test_gpus_that_are_not_wanted_are_not_asked_for(
    run_local: RunLocal, variables: dict[str, str]
) -> None:
    result = run_local(info=NO_RUNTIME, driver=EIGHT, variables=variables)
    assert result.code == 0, result.error
    assert result.out[-1] == "Computes on the CPU"
    assert len(result.calls) == 1 and "--gpus" not in result.calls[0]


def test_a_driver_that_answers_with_an_error_has_no_gpus(run_local: RunLocal) -> None:
    error = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."
    result = run_local(driver=error)
    assert (result.code, result.out[-1]) == (0, "Computes on the CPU")


def test_without_an_engine_the_gpus_of_the_environment_are_named(run_local: RunLocal) -> None:
    result = run_local(
        driver=EIGHT, gpus="8 NVIDIA H200\n", variables={"RUNTIME": "process", "PROCESSES": "8"}
    )
    assert result.code == 0, result.error
    assert result.out == [
        "Running in .venv, as RUNTIME=process asks",
        "Computes on 8 of 8 GPUs, NVIDIA H200",
    ]
    assert result.calls[-1].startswith("-m jobs run") and "--processes 8" in result.calls[-1]
