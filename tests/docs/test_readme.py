"""README.md says what is so."""

from __future__ import annotations

import re

import pytest

from jobs.cli import build_parser
from jobs.settings.config import JOBS
from tests.support.films import ROOT

README = (ROOT / "README.md").read_text()
TARGETS = set(re.findall(r"^([a-z0-9-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_it_fits_on_a_page() -> None:
    assert len(README.splitlines()) <= 150


def test_every_make_command_it_names_exists() -> None:
    named = set(re.findall(r"\bmake ([a-z0-9-]+)", README))
    assert named <= TARGETS
    assert {"run-local", "test"} <= named


def test_every_picture_it_shows_is_there() -> None:
    pictures = re.findall(r"!\[[^]]+]\(([^)]+)\)", README)
    assert pictures
    assert all((ROOT / picture).is_file() for picture in pictures)


@pytest.mark.parametrize("job", JOBS)
def test_every_job_stands_in_the_table_of_the_data_flow(job: str) -> None:
    assert re.search(rf"^\| `{job}` \|", README, re.MULTILINE)


def test_the_variables_it_names_are_flags_of_the_chain(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args(["run", "--help"])
    text = capsys.readouterr().out
    for name in ("SOURCE", "SIZE", "EPOCHS", "NETWORK", "RUN_ID"):
        assert name in README
        assert "--" + name.lower().replace("_", "-") in text
