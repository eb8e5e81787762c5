"""What sets up the environments: uv or pip, the build of torch, steps and locks, by stand-ins."""

from __future__ import annotations

import os
import pty
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.films import ROOT

# Prints the settings that reach uv, and its arguments.
STAND_IN_UV = """#!/bin/sh
if [ "$1" = --version ]; then echo "uv {version}"; exit; fi
env | grep -E '^(UV_|SSL_CERT_FILE=)' >>uv.environment
echo "$@" >>uv.arguments
exit {code}
"""
# `python -m venv --clear FOLDER` without the seconds that it takes; its pip notes its arguments.
STAND_IN_PYTHON = """#!/bin/sh
if [ "$1 $2" != "-m venv" ]; then exec "{python}" "$@"; fi
rm -rf "$4" && mkdir -p "$4/bin" && ln -s "{python}" "$4/bin/python"
cp pip "$4/bin/pip"
"""
# Has no network for uv.
STAND_IN_PIP = """#!/bin/sh
case "$*" in *uv.lock) echo "ERROR: no network"; exit 1 ;; esac
echo "$@" >>pip.arguments
[ -z "$FAIL_PIP" ]
"""
UV_VERSION = re.findall(r"^uv==(\S+)", (ROOT / "docker/requirements/uv.lock").read_text(), re.M)[0]


def write_program(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The set-up's files, a lock and an open requirement, a stand-in of Python, and none of uv."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    (tmp_path / "docker" / "requirements").mkdir(parents=True)
    shutil.copy(ROOT / "docker/requirements/uv.lock", tmp_path / "docker/requirements")
    (tmp_path / "some.lock").write_text("")
    (tmp_path / "torch.in").write_text("")
    write_program(tmp_path / "python", STAND_IN_PYTHON.format(python=sys.executable))
    write_program(tmp_path / "pip", STAND_IN_PIP)
    write_program(tmp_path / "scripts/torch-index.sh", "#!/bin/sh\necho --extra-index-url=cpu\n")
    return tmp_path


def set_up(
    project: Path, stamp: str = ".stamp", **variables: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["scripts/venv.sh", f".venv/{stamp}", "some.lock", "torch.in"],
        cwd=project,
        env=environment(project) | variables,
        capture_output=True,
        text=True,
        timeout=60,
    )


def environment(project: Path) -> dict[str, str]:
    path = f"{project / 'bin'}:{os.environ['PATH']}"
    return os.environ | {"PATH": path, "PYTHON": str(project / "python"), "TORCH": "cpu"}


def arguments(project: Path, program: str) -> list[str]:
    path = project / f"{program}.arguments"
    return path.read_text().splitlines() if path.exists() else []


def give_uv(project: Path, version: str = UV_VERSION, code: int = 0) -> None:
    write_program(project / "bin" / "uv", STAND_IN_UV.format(version=version, code=code))


def test_uv_installs_the_locks_with_hashes_and_then_torch_from_its_index(project: Path) -> None:
    give_uv(project)
    assert set_up(project).returncode == 0
    locked, torch = arguments(project, "uv")
    assert locked.endswith("--require-hashes -r some.lock")
    assert torch.endswith("--extra-index-url=cpu -r torch.in")
    assert (project / ".venv/.stamp").exists()
    assert arguments(project, "pip") == []


def test_without_uv_pip_installs_the_same_and_a_line_says_so(project: Path) -> None:
    give_uv(project, version="0.0.1")
    process = set_up(project)
    assert process.returncode == 0
    assert process.stderr.splitlines() == [
        "ERROR: no network",
        "Setting up .venv by pip, as uv cannot be had: several minutes, once",
    ]
    assert arguments(project, "pip") == [
        "install --require-hashes -r some.lock",
        "install --extra-index-url=cpu -r torch.in",
    ]
    assert arguments(project, "uv") == []


def test_where_uv_fails_pip_starts_anew(project: Path) -> None:
    give_uv(project, code=1)
    process = set_up(project)
    assert process.returncode == 0
    assert "Setting up .venv by pip, as uv could not" in process.stderr
    assert len(arguments(project, "uv")) == 1
    assert len(arguments(project, "pip")) == 2


def test_an_environment_that_is_there_is_left_alone(project: Path) -> None:
    give_uv(project)
    set_up(project)
    assert set_up(project).stderr == ""
    assert len(arguments(project, "uv")) == 2


def test_a_stopped_set_up_is_not_taken_for_whole_also_by_another_build_of_torch(
    project: Path,
) -> None:
    give_uv(project)
    set_up(project, ".stamp-cpu")
    give_uv(project, code=1)
    assert set_up(project, ".stamp-cuda", FAIL_PIP="yes").returncode != 0
    give_uv(project)
    set_up(project, ".stamp-cpu")
    assert len(arguments(project, "uv")) == 2 + 1 + 2


def test_a_second_set_up_says_that_it_waits_for_the_first(project: Path) -> None:
    give_uv(project)
    (project / "build").mkdir()
    holder = subprocess.Popen(["flock", "build/.venv.lock", "sleep", "1"], cwd=project)
    while subprocess.run(["flock", "-n", "build/.venv.lock", "true"], cwd=project).returncode == 0:
        time.sleep(0.01)
    process = set_up(project)
    holder.wait()
    assert process.stderr.startswith("Waiting for another command, which is setting up .venv\n")
    assert process.returncode == 0


@pytest.fixture
def pip_settings(project: Path) -> Path:
    """A configuration file of pip, beside the machine's own ones."""
    give_uv(project)
    return project / "pip.conf"


def install(project: Path, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run uv_install.py with this environment's pip and the stand-in of uv."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "UV_"))}
    return subprocess.run(
        [
            *(sys.executable, "scripts/uv_install.py", "bin/uv", sys.executable),
            *(*options, "-r", "a.lock"),
        ],
        cwd=project,
        env=inherited | {"PIP_CONFIG_FILE": str(project / "pip.conf")} | variables,
        capture_output=True,
        text=True,
        timeout=60,
    )


def variables_of_uv(project: Path) -> dict[str, str]:
    lines = (project / "uv.environment").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


def test_uv_reads_from_the_mirror_that_pip_is_set_to(project: Path, pip_settings: Path) -> None:
    mirror = "https://me:hidden@mirror.example/simple"
    pip_settings.write_text(
        f"[global]\nindex-url = {mirror}\ntrusted-host = mirror.example\n  other.example\n"
        "extra-index-url =\n  https://one.example\n  https://two.example\n"
        "find-links = /wheels ~/more\ncert = /mirror.pem\nretries = 2\n"
    )
    assert install(project).returncode == 0
    uv = variables_of_uv(project)
    assert uv["UV_DEFAULT_INDEX"] == mirror
    assert uv["UV_INDEX"] == "https://one.example https://two.example"
    assert uv["UV_INSECURE_HOST"] == "mirror.example other.example"
    assert uv["UV_FIND_LINKS"] == f"/wheels,{Path.home()}/more"
    assert uv["SSL_CERT_FILE"] == "/mirror.pem"
    (line,) = arguments(project, "uv")
    assert line.endswith("-r a.lock")
    assert "hidden" not in line


def test_variables_replace_pips_files_and_its_section_install_the_global_one(
    project: Path, pip_settings: Path
) -> None:
    pip_settings.write_text(
        "[global]\nindex-url = https://a.example\nfind-links = /a\nno-deps = true\n"
        "[install]\nindex-url = https://b.example\nfind-links = /b\n"
        "[download]\nindex-url = https://d.example\n"
    )
    install(project, PIP_INDEX_URL="https://c.example", PIP_NO_DEPS="no")
    uv = variables_of_uv(project)
    assert (uv["UV_DEFAULT_INDEX"], uv["UV_FIND_LINKS"]) == ("https://c.example", "/b")
    assert "--no-deps" not in arguments(project, "uv")[0]


def test_constraints_hold_for_what_no_lock_pins(project: Path, pip_settings: Path) -> None:
    (project / "uv.environment").write_text("")
    pip_settings.write_text("[global]\nconstraint = /constraints.txt\n")
    assert install(project, "--require-hashes").returncode == 0
    assert "UV_CONSTRAINT" not in variables_of_uv(project)
    assert install(project).returncode == 0
    assert variables_of_uv(project)["UV_CONSTRAINT"] == "/constraints.txt"


def test_a_setting_without_a_counterpart_leaves_the_work_to_pip(
    project: Path, pip_settings: Path
) -> None:
    pip_settings.write_text("[install]\nno-binary = secret-name\n")
    process = install(project)
    assert process.returncode == 3
    assert process.stderr == "uv has no counterpart of pip's setting no-binary\n"
    assert arguments(project, "uv") == []


GPU = "GPU 0: NVIDIA H200 (UUID: GPU-6f)\n"
RUNTIMES = '{"Runtimes":{"nvidia":{"path":"nvidia-container-runtime"},"runc":{"path":"runc"}}}'
DEVICES = '{"DiscoveredDevices":[{"Source":"cdi","ID":"nvidia.com/gpu=all"}]}'
NEITHER = '{"Runtimes":{"runc":{"path":"runc"}},"Labels":["vendor=nvidia"]}'


@pytest.mark.parametrize(
    ("driver", "engine", "torch", "build"),
    [
        (GPU, NEITHER, "", "cuda"),
        ("", RUNTIMES, "", "cuda"),
        ("", DEVICES, "", "cuda"),
        ("", NEITHER, "", "cpu"),
        ("No devices were found\n", NEITHER, "", "cpu"),
        (GPU, RUNTIMES, "cpu", "cpu"),
        ("", NEITHER, "cuda", "cuda"),
        ("", NEITHER, "rocm", ""),
    ],
)
def test_the_build_of_torch_fits_the_machine_unless_it_is_named(
    tmp_path: Path, driver: str, engine: str, torch: str, build: str
) -> None:
    for name, text in (("nvidia-smi", driver), ("docker", engine)):
        (tmp_path / f"{name}.txt").write_text(text)
        script = f'#!/bin/sh\ncat "{tmp_path}/{name}.txt"\n[ -s "{tmp_path}/{name}.txt" ]\n'
        write_program(tmp_path / name, script)
    process = subprocess.run(
        [ROOT / "scripts/torch-build.sh"],
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "TORCH": torch},
        capture_output=True,
        text=True,
    )
    assert process.stdout.strip() == build
    assert (process.returncode == 0) == bool(build), process.stderr


def step(folder: Path, command: str, stderr: int = subprocess.PIPE) -> subprocess.Popen[str]:
    script = f'set -e; . "{ROOT}/scripts/steps.sh"; step build/x.log "Making x" {command}; echo end'
    return subprocess.Popen(
        ["bash", "-c", script], cwd=folder, stdout=subprocess.PIPE, stderr=stderr, text=True
    )


def test_the_output_of_a_step_is_one_line_and_whole_in_its_log(tmp_path: Path) -> None:
    assert step(tmp_path, "seq 400").communicate() == ("end\n", "Making x\n")
    assert (tmp_path / "build/x.log").read_text().split() == [str(n) for n in range(1, 401)]


def test_a_failed_step_ends_the_script_shows_the_last_lines_and_names_the_log(
    tmp_path: Path,
) -> None:
    process = step(tmp_path, "bash -c 'seq 400; exit 7'")
    output, errors = process.communicate()
    assert (process.returncode, output) == (7, "")
    assert errors.splitlines()[1:-1] == [str(n) for n in range(381, 401)]
    assert errors.splitlines()[-1].endswith("build/x.log")


def test_a_terminal_sees_the_step_move_and_then_its_time(tmp_path: Path) -> None:
    ours, terminal = pty.openpty()
    process = step(tmp_path, "bash -c 'echo unpacking y; sleep 1.2'", stderr=terminal)
    os.close(terminal)
    seen = b""
    try:
        while part := os.read(ours, 1000):
            seen += part
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert process.communicate()[0] == "end\n"
    assert process.returncode == 0
    *moving, last = seen.decode().replace("\r\n", "").split("\r\x1b[K")[1:]
    assert moving and all(re.fullmatch(r"Making x: \d s  unpacking y", line) for line in moving)
    assert re.fullmatch(r"Making x: \d s", last)
