"""Names and messages from outside cannot pass for lines of ours, nor steer a terminal."""

from __future__ import annotations

import importlib.util
import logging
import subprocess
import sys
import unicodedata
from pathlib import Path
from types import ModuleType

import pytest

from jobs.cli import build_parser
from jobs.runtime import visible_text
from jobs.runtime.visible_text import LineFormatter, visible
from jobs.storage.csv_table import csv_bytes

ROOT = Path(__file__).resolve().parents[2]
FORGED = "2026-11-28 00:00:00,000 ERROR forged"
EVIL = f"films\n{FORGED}\r\x1b[2K\x1b]0;t\x07\0\x7f\x9b31m\u202egnp.\u2066\u2028end"
SHOWN = rf"films\n{FORGED}\r\x1b[2K\x1b]0;t\x07\x00\x7f\x9b31m\u202egnp.\u2066\u2028end"
LETTERS = ["Снимок", "患者の写真", "Röntgen", "مريض", "ผู้ป่วย", "👩‍⚕️", "a\\nb", "50 %", "a\u00a0b"]


def of_dags() -> ModuleType:
    """The DAGs' copy, which does not need Airflow."""
    spec = importlib.util.spec_from_file_location("of_dags", ROOT / "dags/lung/visible_text.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_control_characters_become_their_escapes() -> None:
    assert visible(EVIL) == SHOWN
    assert visible("\ud800") == r"\ud800"


@pytest.mark.parametrize("text", LETTERS)
def test_letters_of_every_script_stay_as_they_are(text: str) -> None:
    assert visible(text) == text


def test_every_control_separator_and_mark_of_direction_of_the_basic_plane_is_escaped() -> None:
    marks = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    everything = [chr(code) for code in range(2**16)]
    expected = [
        character
        for character in everything
        if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
        or unicodedata.bidirectional(character) in marks
        or unicodedata.name(character, "").endswith(
            ("-TO-LEFT MARK", "-TO-RIGHT MARK", "LETTER MARK")
        )
    ]
    assert visible_text.CONTROLS.findall("".join(everything)) == expected


def test_the_dags_escape_the_same() -> None:
    assert of_dags().CONTROLS.pattern == visible_text.CONTROLS.pattern
    assert of_dags().visible(EVIL) == SHOWN


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_the_dags_show_the_lines_of_a_jobs_output_wherever_its_chunks_end(size: int) -> None:
    data = "Снимок\x1b[2J\nthe 患者 \u202elast\r\n\nend".encode() + b"\xff"
    chunks = [data[start : start + size] for start in range(0, len(data), size)]
    lines = b"".join(of_dags().visible_lines(chunks)).decode()
    assert lines == "Снимок\\x1b[2J\nthe 患者 \\u202elast\n\nend\\xff"


def test_a_record_is_one_line_and_its_traceback_is_indented() -> None:
    formatter = LineFormatter("%(asctime)s %(levelname)s %(message)s")
    try:
        raise ValueError(EVIL)
    except ValueError:
        error = sys.exc_info()
    record = logging.LogRecord("jobs", logging.ERROR, "", 0, "%s: %s", ("a", EVIL), error)
    first, *traceback = formatter.format(record).split("\n")
    assert first.endswith(f" ERROR a: {SHOWN}")
    assert len(traceback) >= 3 and all(line.startswith("  ") for line in traceback)
    assert not visible_text.CONTROLS.search("".join(traceback))
    assert f"  {FORGED}" in "".join(traceback)


def test_an_ordinary_record_reads_as_before() -> None:
    record = logging.LogRecord("jobs", logging.INFO, "", 0, "films: %d (%s)", (2, "肺"), None)
    text = LineFormatter("%(levelname)s %(message)s").format(record)
    assert text == "INFO films: 2 (肺)"


def test_a_row_of_a_table_is_one_line_whatever_the_films_name() -> None:
    rows: list[dict[str, object]] = [
        {"id": "a", "origin": EVIL, "height": 7},
        {"id": "b", "origin": "Снимок, 1.png"},
    ]
    lines = csv_bytes(["id", "origin", "height"], rows).decode().splitlines()
    assert lines == ["id,origin,height", f'a,"{SHOWN}",7', 'b,"Снимок, 1.png",']


def test_the_error_of_an_unknown_flag_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        build_parser().parse_args(["schema", f"--{EVIL}"])
    assert caught.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith(f"arguments: --{SHOWN}")


def test_the_error_of_a_command_is_one_line(tmp_path: Path) -> None:
    evil = EVIL.replace("\0", "")
    process = subprocess.run(
        [
            *(sys.executable, "-m", "jobs", "masks", "--films", str(tmp_path), "--to", "y"),
            *("--folder", evil, "--model", "last"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert process.returncode == 2, process.stderr
    (line,) = process.stderr.splitlines()
    shown = SHOWN.replace(chr(92) + "x00", "")
    assert f"--model last: there is no {shown}/last_run.json, nothing ran here yet: " in line


def test_an_unexpected_error_forges_no_line(tmp_path: Path) -> None:
    code = f"import jobs.cli; jobs.cli.set_up_logging(); raise OSError({EVIL!r})"
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert process.returncode == 1
    lines = process.stderr.removesuffix("\n").split("\n")
    first, second = SHOWN.split(r"\n")
    assert lines[-2:] == [f"  OSError: {first}", f"  {second}"]
    assert all(line.startswith("  ") for line in lines)
