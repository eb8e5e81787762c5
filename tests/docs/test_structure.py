"""The rules of the project's structure: what an import loads, sizes, names and the README's tree.

Which package may import which stands in pyproject.toml; import-linter checks it in `make lint`.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
JOB_FILES = ("download", "preprocess", "train", "predict", "evaluate", "publish", "inbox")
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "base"}
CODE_FOLDERS = ("jobs", "dags", "scripts", "tests", "docker", ".ci")
CODE_SUFFIXES = {".py", ".sh", ".j2", ".css", ".yaml", ".Dockerfile", ""}
MAX_LINES = 350
MAX_FILES_IN_JOBS = 14


def modules(*folders: str) -> list[Path]:
    """The Python files of folders of the project, relative to its root."""
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    assert paths, f"no Python file in {folders}"
    return [path.relative_to(ROOT) for path in paths]


def loaded_by(module: str, *packages: str) -> list[str]:
    """Which of the packages a new Python has loaded once it has imported the module."""
    assert all(map(importlib.util.find_spec, packages)), f"not all of {packages} are installed"
    code = f"import sys, {module}; print(*sorted({set(packages)} & sys.modules.keys()))"
    process = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return process.stdout.split()


def test_a_package_that_a_module_loads_is_reported() -> None:
    assert loaded_by("jobs.storage.s3", "boto3", "torch") == ["boto3"]


def test_the_command_line_loads_neither_torch_nor_boto3() -> None:
    assert loaded_by("jobs.cli", "torch", "boto3", "botocore") == []


def test_no_job_loads_torch_before_it_knows_that_there_is_work() -> None:
    assert loaded_by(", ".join(f"jobs.{job}" for job in JOB_FILES), "torch") == []


def test_the_kaggle_source_imports_kagglehub_only_within_functions() -> None:
    assert loaded_by("jobs.sources.kaggle", "kagglehub", "kagglesdk") == []


def test_only_the_jobs_and_what_joins_them_stand_on_top_of_the_package() -> None:
    names = {path.stem for path in (ROOT / "jobs").glob("*.py")}
    assert names >= {"cli", "local", "errors", *JOB_FILES}
    assert len(names) <= MAX_FILES_IN_JOBS, "a package of jobs/ is the place for a new module"


def test_no_file_is_longer_than_a_reader_can_hold() -> None:
    paths = [
        path
        for folder in CODE_FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix in CODE_SUFFIXES
    ]
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in [*paths, ROOT / "Makefile"]
    }
    assert lengths.keys() >= {"jobs/cli.py", "jobs/reports/report.html.j2", "scripts/run-local.sh"}
    assert {path: count for path, count in lengths.items() if count > MAX_LINES} == {}


def test_no_module_has_a_name_that_says_nothing() -> None:
    paths = modules("jobs", "dags", "scripts", "tests")
    vague = {path.as_posix() for path in paths if VAGUE_NAMES & set(path.with_suffix("").parts)}
    assert vague == set()


def readme_tree() -> dict[str, str]:
    """The names in the README's tree with their purpose; a folder's ends with a slash.

    A line has one name or several, then their purpose.
    """
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```\w*\n(.*?)^```", readme, re.M | re.S)
    trees = [block for block in blocks if re.search(r"^\W*jobs/\s", block, re.M)]
    assert len(trees) == 1, "the README has one fenced block with the tree, which names jobs/"
    tree = {}
    for line in trees[0].splitlines():
        words = line.strip(" │├└─|+`-").split()
        file_like = [bool(re.fullmatch(r"[\w./-]+(/|\.\w+)", word)) for word in words]
        count = max(1, [*file_like, False].index(False))
        for name in words[:count]:
            short = name.rstrip("/").rpartition("/")[2] + "/" * name.endswith("/")
            tree[short] = " ".join(words[count:])
    return tree


def test_every_package_folder_is_in_the_readme_with_its_purpose() -> None:
    packages = {path.parent.name + "/" for path in modules("jobs", "dags", "tests")}
    assert packages >= {"jobs/", "sources/", "imaging/", "segmentation/", "dags/", "lung/"}
    tree = readme_tree()
    assert packages - tree.keys() == set()
    assert {name for name in packages if len(tree[name].split()) < 2} == set()


def test_everything_in_the_readmes_tree_exists() -> None:
    shipped = ("jobs", "dags", "docker", "docs", "scripts", "tests", "images", ".ci")
    names = {path.name + "/" * path.is_dir() for path in ROOT.iterdir()}
    for folder in shipped:
        names |= {path.name + "/" * path.is_dir() for path in (ROOT / folder).rglob("*")}
    assert readme_tree().keys() - names == set()
