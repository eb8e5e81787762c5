"""CSVs whose texts a spreadsheet does not run as formulas."""

from __future__ import annotations

import csv
import io

import pytest

from jobs.storage.csv_table import csv_bytes, unescape_formula

FORMULAS = [
    '=HYPERLINK("http:..example","click").png',
    "@SUM(1+1).png",
    "+1-2.png",
    "-dash.png",
    "-0.5",
    " =1.png",
    '"=1.png',
    "'=1.png",
    "''=1.png",
    "＝1.png",
    "＋1.png",
    "－1.png",
    "＠1.png",
]
OTHERS = ["ok.png", "a=b.png", "1-2.png", "'quoted'.png", "'", "", " lead.png", "'a=b"]


def rows_of(data: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(data.decode(), newline=""), strict=True))


def written(cell: object) -> str:
    """The cell as a reader of the CSV has it."""
    _, (first, last) = rows_of(csv_bytes(["cell", "last"], [{"cell": cell, "last": 1}]))
    assert last == "1"
    return first


@pytest.mark.parametrize("text", FORMULAS)
def test_a_text_that_begins_like_a_formula_has_an_apostrophe_in_front(text: str) -> None:
    assert written(text) == f"'{text}"


@pytest.mark.parametrize("text", [*FORMULAS, *OTHERS])
def test_the_text_can_be_had_back(text: str) -> None:
    assert unescape_formula(written(text)) == text


def test_other_texts_and_all_numbers_are_written_as_they_are() -> None:
    rows = [{"id": text, "x": number} for text, number in zip("ab", (-0.5, -3), strict=True)]
    assert csv_bytes(["id", "x"], rows) == b"id,x\na,-0.5\nb,-3\n"
    for text in OTHERS[:5]:
        assert written(text) == text


@pytest.mark.parametrize(("end", "shown"), [("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t")])
def test_a_control_character_in_a_name_is_escaped_and_begins_no_row(end: str, shown: str) -> None:
    data = csv_bytes(["id", "x"], [{"id": f"a{end}=1.png", "x": 1}, {"id": "b", "x": 2}])
    assert data == f"id,x\na{shown}=1.png,1\nb,2\n".encode()
