"""The rules of the project's structure: who imports whom, sizes, names and the README's tree."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
JOB_FILES = ("download", "preprocess", "train", "predict", "evaluate", "publish", "inbox")
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "base"}
MAX_LINES = 350


def modules(*folders: str) -> list[Path]:
    """The Python files of folders of the project, relative to its root."""
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    assert found, f"no Python file in {folders}"
    return [path.relative_to(ROOT) for path in found]


def imported_names(nodes: Iterable[ast.AST], package: str) -> Iterator[str]:
    """The full dotted name of everything that nodes of a module in `package` import."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1]
            start = [*parents, node.module] if node.level else [node.module]
            above = ".".join(part for part in start if part)
            yield from (f"{above}.{alias.name}" for alias in node.names)


def imports(path: Path) -> set[str]:
    return set(imported_names(ast.walk(parsed(path)), ".".join(path.parent.parts)))


def parsed(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"), str(path))


def outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes below one that run when its module is imported."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from outside_functions(child)


def within(name: str, *packages: str) -> bool:
    """Whether a dotted name is one of the packages or lies in one."""
    return any(name == package or name.startswith(package + ".") for package in packages)


def importers(paths: list[Path], *packages: str) -> set[str]:
    """Which files import any of the packages."""
    return {
        path.as_posix() for path in paths if any(within(name, *packages) for name in imports(path))
    }


def test_every_form_of_import_is_seen() -> None:
    source = """
import a.b as c
from d import e, f
from . import g
from .h import i
from ..j import k
if TYPE_CHECKING:
    from l.m import n
class C:
    def run(self):
        import o
"""
    at_import = {"a.b", "d.e", "d.f", "top.sub.g", "top.sub.h.i", "top.j.k", "l.m.n"}
    tree = ast.parse(source)
    assert set(imported_names(outside_functions(tree), "top.sub")) == at_import
    assert set(imported_names(ast.walk(tree), "top.sub")) == at_import | {"o"}


def test_the_dags_import_neither_the_jobs_nor_torch() -> None:
    assert importers(modules("dags"), "jobs", "torch") == set()


def test_the_jobs_never_import_airflow() -> None:
    assert importers(modules("jobs"), "airflow") == set()


def test_only_storage_imports_boto3() -> None:
    assert importers(modules("jobs"), "boto3") == {"jobs/storage/s3.py"}
    assert importers(modules("jobs"), "botocore") == {
        "jobs/storage/s3_errors.py",
        "jobs/storage/s3.py",
    }
    assert importers(modules("dags"), "boto3") == set(), "Airflow's own hook is for that"


def test_only_the_command_line_imports_argparse() -> None:
    assert importers(modules("jobs", "dags"), "argparse") == {"jobs/cli.py"}


def test_only_functions_of_the_kaggle_source_import_kagglehub() -> None:
    kaggle = Path("jobs/sources/kaggle.py")
    packages = ("kagglehub", "kagglesdk")
    assert importers(modules("jobs", "dags"), *packages) == {kaggle.as_posix()}
    at_import = set(imported_names(outside_functions(parsed(kaggle)), "jobs.sources"))
    assert {name for name in at_import if within(name, *packages)} == set()


@pytest.mark.parametrize("package", ["imaging", "segmentation"])
def test_imaging_and_segmentation_know_nothing_of_the_jobs_but_errors(package: str) -> None:
    allowed = ("jobs.errors", f"jobs.{package}")
    for path in modules(f"jobs/{package}"):
        of_jobs = {name for name in imports(path) if within(name, "jobs")}
        assert {name for name in of_jobs if not within(name, *allowed)} == set(), path


@pytest.mark.parametrize("job", JOB_FILES)
def test_a_job_never_imports_another_job(job: str) -> None:
    others = [f"jobs.{other}" for other in JOB_FILES if other != job]
    assert importers([Path(f"jobs/{job}.py")], *others) == set()


def test_the_command_line_loads_neither_torch_nor_boto3() -> None:
    code = (
        "import sys, jobs.cli; print(*sorted({'torch', 'boto3', 'botocore'} & sys.modules.keys()))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == []


def test_no_job_loads_torch_before_it_knows_that_there_is_work() -> None:
    jobs = ", ".join(f"jobs.{job}" for job in JOB_FILES)
    command = [sys.executable, "-c", f"import sys, {jobs}; print('torch' in sys.modules)"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "False\n"


def test_no_file_is_longer_than_a_reader_can_hold() -> None:
    scripts = [
        path.relative_to(ROOT) for f in ("docker", "scripts") for path in (ROOT / f).glob("*.sh")
    ]
    lengths = {
        path.as_posix(): len((ROOT / path).read_text(encoding="utf-8").splitlines())
        for path in [*modules("jobs", "dags", "scripts", "tests"), *scripts]
    }
    assert {path: count for path, count in lengths.items() if count > MAX_LINES} == {}


def test_no_module_has_a_name_that_says_nothing() -> None:
    paths = modules("jobs", "dags", "tests")
    vague = {path.as_posix() for path in paths if VAGUE_NAMES & set(path.with_suffix("").parts)}
    assert vague == set()


def readme_tree() -> dict[str, str]:
    """The names in the README's tree with their purpose; a folder's ends with a slash.

    A line is one name or several, then what they are for.
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
    shipped = ("jobs", "dags", "docker", "scripts", "tests", "images", ".ci")
    names = {path.name + "/" * path.is_dir() for path in ROOT.iterdir()}
    for folder in shipped:
        names |= {path.name + "/" * path.is_dir() for path in (ROOT / folder).rglob("*")}
    assert readme_tree().keys() - names == set()
