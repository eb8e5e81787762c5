"""`make cases`: the table tells right from wrong, and every expectation can be met."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cases import __main__ as cases
from tests.cases.expectations import NEEDED, SCRIPTS, TRIES, Try
from tests.cases.table import RIGHT, WRONG, compared, line, skipped, summary, without_expectation

EXPECTED = [
    *(item.expected for items in TRIES.values() for item in items),
    *(text for script in SCRIPTS.values() for text in script.expected.values()),
]


@pytest.mark.parametrize("expected", sorted(set(EXPECTED)))
def test_every_expectation_compiles_and_accepts_no_empty_result(expected: str) -> None:
    assert re.compile(expected).fullmatch("") is None


def test_every_case_has_one_kind_of_expectation_and_names_its_tries_once() -> None:
    assert not TRIES.keys() & SCRIPTS.keys()
    assert NEEDED.keys() | set(NEEDED.values()) <= TRIES.keys() | SCRIPTS.keys()
    for items in TRIES.values():
        names = [item.name for item in items]
        assert names and len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("got", "verdict"),
    [("24 records", RIGHT), ("124 records", WRONG), ("24 records, repeated 1", WRONG), ("", WRONG)],
)
def test_the_whole_result_is_compared(got: str, verdict: str) -> None:
    assert compared("01-labels", "as they are", "24 records", got).verdict == verdict


def test_only_a_wrong_result_is_printed_in_full() -> None:
    long = "x" * 500
    assert long in line(compared("01-labels", "all", "y", long))
    right = line(compared("01-labels", "all", "x+", long))
    assert long not in right and right.split()[:4] == ["01-labels", "all", "x+", "right"]


def test_the_summary_counts_each_verdict() -> None:
    rows = [
        compared("01-labels", "one", "a", "a"),
        compared("01-labels", "two", "a", "b"),
        skipped("38-disk", "one", "a", "no root"),
        without_expectation("99-new"),
    ]
    assert summary(rows) == "right 1, WRONG 1, skipped 1, no expectation 1"


def test_a_folder_of_cases_and_a_case_alone_are_found_once(tmp_path: Path) -> None:
    for name in ("02-b", "01-a", "notes", "01-a/03-inner"):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
    (tmp_path / "README.md").write_text("x")
    one, two = tmp_path / "01-a", tmp_path / "02-b"
    assert cases.found([str(tmp_path)]) == [one, two]
    assert cases.found([str(two), str(tmp_path)]) == [two, one]
    assert cases.main([str(tmp_path / "notes")]) == 2


def test_a_case_whose_generator_fails_is_told_with_its_last_line(tmp_path: Path) -> None:
    case = tmp_path / "05-odd"
    case.mkdir()
    (case / "make.py").write_text("raise ValueError('no films')")
    assert cases._made(case, tmp_path) == "exit 1: ValueError: no films"


def test_a_try_that_breaks_is_a_row(tmp_path: Path) -> None:
    def breaks(bench: object, case: Path) -> str:
        raise ZeroDivisionError("by\nzero")

    row = cases._tried(Try("one", "24 records", breaks), tmp_path, None)  # type: ignore[arg-type]
    assert (row.got, row.verdict) == ("ZeroDivisionError: by zero", WRONG)
