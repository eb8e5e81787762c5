"""The pages name commands, modules, flags, variables and files that exist; their links resolve."""

from __future__ import annotations

import importlib.util
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

from jobs.cli import build_parser
from jobs.settings.config import JOBS
from tests.support.films import ROOT

PAGES = [
    *("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "jobs/README.md", "dags/README.md"),
    *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")),
]
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
ROOMS = sorted(path.parent.name for path in (ROOT / "jobs").glob("*/__init__.py"))
FOLDERS = ("jobs", "dags", "docker", "docs", "scripts", "tests", "images")
# Written by commands; git ignores them.
GENERATED = {"docker/.env", "docker/compose.override.yaml"}
# Programs other than ours whose flags the pages show alone.
FOREIGN_FLAGS = {"--timeout"}
CODE_FILES = [
    path
    for folder in ("jobs", "dags", "docker", "scripts", "tests")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in (".py", ".sh", ".yaml", ".Dockerfile")
]


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def code_of(page: str) -> list[str]:
    """The fenced blocks and the inline code of a page."""
    text = read(page)
    blocks = re.findall(r"^ *```\w*\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    prose = re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)
    return [*blocks, *re.findall(r"`([^`]+)`", prose)]


def words(pattern: str, page: str) -> set[str]:
    """What the pattern's group matches in the code of a page."""
    return {match for code in code_of(page) for match in re.findall(pattern, code)}


def test_the_pages_are_found() -> None:
    assert {"README.md", "docs/architecture.md", "docs/benchmarks.md"} <= set(PAGES)
    assert sum(page.startswith("docs/adr/") for page in PAGES) >= 5
    assert all(code_of(page) for page in PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_every_make_command_exists(page: str) -> None:
    makefile = read("Makefile")
    targets = set(re.findall(r"^([a-z0-9-]+):.*## ", makefile, re.MULTILINE))
    assert words(r"\bmake (?:[A-Z]+=\S+ )*([a-z][a-z0-9-]*)", page) <= targets


@pytest.mark.parametrize("page", PAGES)
def test_every_module_that_python_runs_exists(page: str) -> None:
    modules = words(r"python -m ([\w.]+)", page)
    assert {module for module in modules if not can_run(module)} == set()


def can_run(module: str) -> bool:
    """Whether `python -m` finds a module: of the project, or of an installed package."""
    path = ROOT / module.replace(".", "/")
    if path.parent != ROOT or path.exists():
        return path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()
    return importlib.util.find_spec(module) is not None


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_the_jobs_exists(page: str) -> None:
    commands = words(r"-m jobs ([a-z0-9]+)", page) | words(r"\bjob ([a-z]+) --", page)
    parser = build_parser()
    for command in commands:
        with pytest.raises(SystemExit) as end:
            parser.parse_args([command, "--help"])
        assert end.value.code == 0, command


@pytest.mark.parametrize("page", PAGES)
def test_every_flag_that_is_named_by_itself_is_one_of_the_jobs(
    page: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (*JOBS, "run", "masks", "s3"):
        with pytest.raises(SystemExit):
            build_parser().parse_args([command, "--help"])
    flags = set(re.findall(r"--[a-z0-9-]+", capsys.readouterr().out)) | FOREIGN_FLAGS
    named = {code.split()[0].partition("=")[0] for code in code_of(page) if code[:2] == "--"}
    assert named <= flags


@pytest.mark.parametrize("page", PAGES)
def test_every_variable_of_the_project_is_read_somewhere(page: str) -> None:
    code = "\n".join(path.read_text(encoding="utf-8") for path in CODE_FILES)
    assert {name for name in words(r"\bLUNG_[A-Z_0-9]*[A-Z]", page) if name not in code} == set()


@pytest.mark.parametrize("page", PAGES)
def test_every_path_of_the_project_exists(page: str) -> None:
    pattern = rf"(?<![\w/.'-])((?:{'|'.join(FOLDERS)})/[\w./-]*\w)"
    paths = words(pattern, page) - GENERATED
    assert {path for path in paths if not (ROOT / path).exists()} == set()


@pytest.mark.parametrize("page", PAGES)
def test_a_name_that_is_said_to_be_in_a_file_is_there(page: str) -> None:
    folders = "|".join(FOLDERS)
    pairs = re.findall(rf"`(\w+)`\s+(?:of|in)\s+`((?:{folders})/[\w./-]+)`", read(page))
    assert [(name, path) for name, path in pairs if name not in read(path)] == []


def links(page: str) -> Iterator[tuple[str, str]]:
    """(target, anchor) of every link and picture that stays in the project."""
    for target in re.findall(r"\[[^]]*]\(([^)\s]+)\)", read(page)):
        if not re.match(r"[a-z]+:", target):
            path, _, anchor = target.partition("#")
            yield unquote(path), anchor


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_and_picture_leads_somewhere(page: str) -> None:
    for path, anchor in links(page):
        target = ROOT / os.path.normpath(Path(page).parent / path) if path else ROOT / page
        assert target.exists(), path
        assert not anchor or anchor in anchors(target), f"{path}#{anchor}"


@pytest.mark.parametrize("picture", sorted((ROOT / "images").iterdir()), ids=lambda path: path.name)
def test_every_picture_is_shown_on_a_page(picture: Path) -> None:
    shown = {
        os.path.normpath(Path(page).parent / path) for page in PAGES for path, _ in links(page)
    }
    assert picture.relative_to(ROOT).as_posix() in shown


@pytest.mark.parametrize("room", ROOMS)
def test_every_file_of_a_room_is_described_in_the_architecture(room: str) -> None:
    section = re.search(rf"^### `{room}/`.*?(?=^#)", ARCHITECTURE, re.MULTILINE | re.DOTALL)
    assert section, f"docs/architecture.md has no section for jobs/{room}/"
    described = set(re.findall(r"`(\w+\.py)`", section[0]))
    files = {path.name for path in (ROOT / "jobs" / room).glob("*.py")} - {"__init__.py"}
    assert files and described == files


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_is_drawn_and_mapped(room: str) -> None:
    assert f">{room}/<" in read("images/house.svg")
    assert f"| `{room}/` |" in read("jobs/README.md")


@pytest.mark.parametrize("job", JOBS)
def test_every_job_is_in_the_table_of_the_s3_contract(job: str) -> None:
    assert re.search(rf"^\| `{job}` \|", ARCHITECTURE, re.MULTILINE)


def test_the_changelog_starts_with_the_version_of_the_project() -> None:
    version = tomllib.loads(read("pyproject.toml"))["project"]["version"]
    first = re.search(r"^## (\S+)", read("CHANGELOG.md"), re.MULTILINE)
    assert first and first[1] == version
