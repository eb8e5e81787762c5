"""README.md fits on a page, and what it says of commands, flags and Python is so."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs.cli import build_parser
from jobs.settings.config import JOBS
from tests.support.films import ROOT
from tests.support.starters import real_weights, write_starter

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_it_fits_on_a_page() -> None:
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize("command", ["make run-local", "make test", "make airflow", "make up"])
def test_it_names_the_commands_that_a_newcomer_types(command: str) -> None:
    assert command in README


@pytest.mark.parametrize("job", JOBS)
def test_every_job_is_in_its_diagram(job: str) -> None:
    diagram = re.search(r"^```text\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert diagram and re.search(rf"\b{job}\b", diagram[1])


def test_the_variables_it_names_are_flags_of_the_chain(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args(["run", "--help"])
    text = capsys.readouterr().out
    for name in ("SOURCE", "SIZE", "EPOCHS", "NETWORK", "RUN_ID"):
        assert f"`{name}`" in README
        assert "--" + name.lower().replace("_", "-") in text


def test_its_python_lines_mask_a_film(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_starter(tmp_path / "model", real_weights())
    film = np.random.default_rng(0).integers(0, 256, (40, 30), dtype=np.uint8)
    Image.fromarray(film).save(tmp_path / "film.png")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(python_lines(), names)
    mask = names["mask"]
    assert isinstance(mask, np.ndarray)
    assert (mask.shape, mask.dtype) == (film.shape, np.bool_)


def python_lines() -> str:
    blocks = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 1, "README has one block of Python"
    lines: str = blocks[0]
    assert "load_package" in lines
    assert len(lines.partition("\n\n")[2].splitlines()) == 2, "two lines after the imports"
    return lines
