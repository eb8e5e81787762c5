"""The patient of a film, by a pattern in its name or by a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobs import download
from jobs.errors import BadDataError, ConfigError, NotFoundError
from jobs.films.rows import raw_rows
from jobs.settings.config import DownloadConfig
from jobs.sources.layouts import recognise
from jobs.sources.patients import (
    assign,
    by_pattern,
    by_table,
    digest,
    read_table,
    warn_of_numbered_films,
)
from jobs.storage.manifest import Manifest
from jobs.storage.s3 import Store
from tests.support.films import draw_pair, png

NAMES = ["a/images/P7_left.png", "a/images/P7_right.png", "b/images/P12_1.png"]


def patients_of(names: list[str], pattern: str) -> list[str]:
    films = recognise([names]).films
    return [film.patient for film in assign(films, by_pattern(pattern), "--patients")]


def patients_by_table(names: list[str], table: dict[str, str]) -> dict[str, str]:
    """{path of the film: its patient, "" without one}."""
    films = recognise([names]).films
    return dict(zip((film.film[1] for film in films), by_table(table)(films), strict=True))


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (r"^([^_]+)_", ["P12", "P7", "P7"]),
        (r"P(\d+)", ["12", "7", "7"]),
        (r"(?P<patient>P\d+)_(left|right|1)", ["P12", "P7", "P7"]),
        (r"^(\w)/images/", ["b", "a", "a"]),
    ],
    ids=["only group", "digits", "named group", "folder"],
)
def test_a_pattern_finds_the_patient_in_the_file_name_or_with_a_slash_in_the_path(
    pattern: str, expected: list[str]
) -> None:
    assert patients_of(NAMES, pattern) == expected


@pytest.mark.parametrize(
    ("names", "pattern", "expected"),
    [
        (
            ["2023/images/P7_left.png", "2024/images/P7_left.png", "2024/images/P7_right.png"],
            r"^([^_]+)_",
            {"P7"},
        ),
        (["images/Müller_01.png", "images/Möller_01.png"], r"^([^_]+)_", {"Müller", "Möller"}),
        (["images/Mu\u0308ller_01.png", "images/M\u00fcller_02.png"], r"^([^_]+)_", {"Müller"}),
        (["Mu\u0308ller/images/1.png", "M\u00fcller/images/2.png"], r"^(\w+)/", {"Müller"}),
        (["images/Scan_17.png", "images/scan_17.png"], r"_([^_]+)$", {"17"}),
        ([f"images/P7_{'long' * 40}_{side}.png" for side in "lr"], r"^P7_.*_([lr])$", {"l", "r"}),
    ],
    ids=["stems that repeat", "umlauts", "decomposed", "path", "letters' case", "long names"],
)
def test_the_pattern_is_matched_against_the_original_name(
    names: list[str], pattern: str, expected: set[str]
) -> None:
    """Not against the id, which may have folders, a digest, and "_" for other characters."""
    patients = patients_of(names, pattern)
    assert len(patients) == len(names)
    assert set(patients) == expected


def test_a_pattern_for_the_file_name_is_not_matched_against_the_folder() -> None:
    """Otherwise P7 would be two patients, P7 and "my"."""
    with pytest.raises(ConfigError, match=r"1 of 2 films: 'my_scans/images/P7\.png'"):
        patients_of(["my_scans/images/P7.png", "my_scans/images/P7_left.png"], r"^([^_]+)_")


def test_films_without_a_patient_are_listed_in_one_error() -> None:
    names = [*NAMES, *(f"a/images/scan{n}.png" for n in range(7))]
    with pytest.raises(ConfigError) as raised:
        patients_of(names, r"^(P\d+)_")
    message = str(raised.value)
    assert "7 of 10 films: 'a/images/scan0.png', 'a/images/scan1.png'" in message
    assert message.count("scan") == 5 and "and 2 more" in message


def test_an_empty_match_is_not_a_patient() -> None:
    with pytest.raises(ConfigError, match="1 of 1 films: 'images/left"):
        patients_of(["images/left.png"], r"(\d*)left")


def test_films_of_public_sets_keep_the_patients_of_their_names_with_every_pattern() -> None:
    names = ["images/P7_1.png", "CXR_png/MCUCXR_0003_1.png", "CXR_png/CHNCXR_0004_0.png"]
    for pattern in (r"^(P\d+)_", r"^([^_]+)_"):
        assert patients_of(names, pattern) == ["CHNCXR_0004", "MCUCXR_0003", "P7"]


def test_a_table_decides_the_patient_of_a_public_sets_film_too() -> None:
    films = recognise([["CXR_png/MCUCXR_0003_1.png", "CXR_png/MCUCXR_0004_0.png"]]).films
    assigned = assign(films, by_table({"MCUCXR_0003_1": "Ann"}), "--patients")
    assert [film.patient for film in assigned] == ["Ann", "MCUCXR_0004"]


def test_a_table_finds_a_film_whose_name_is_decomposed() -> None:
    films = recognise([["images/Mu\u0308ller.png"]]).films
    (film,) = assign(films, by_table({"images/M\u00fcller.png": "Ann"}), "--patients")
    assert film.patient == "Ann"


def test_a_film_that_has_a_public_sets_name_only_as_its_id_is_a_teams_own() -> None:
    names = ["images/MCUCXR 0003_1.png"]
    assert [film.id for film in recognise([names]).films] == ["MCUCXR_0003_1"]
    assert patients_of(names, r" (\d+)_") == ["0003"]
    with pytest.raises(ConfigError, match="1 of 1 films"):
        patients_of(names, r"^(P\d+)_")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"patient_pattern": "^(P"}, ["--patient-pattern", "'^(P'", "not a regular expression"]),
        ({"patient_pattern": "P[0-9]+"}, ["0 groups", "only one"]),
        ({"patient_pattern": "(P)([0-9]+)"}, ["2 groups", "(?P<patient>...)"]),
        ({"patients": "films.csv"}, ["--patients", "wrong form", "s3://BUCKET/KEY.csv"]),
        (
            {"patient_pattern": "(P)", "patients": "s3://lung/patients.csv"},
            ["--patient-pattern", "--patients", "give one of them"],
        ),
    ],
)
def test_an_invalid_pattern_or_table_is_refused_by_the_config(
    options: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(ConfigError) as raised:
        DownloadConfig(source="file:///films", out="s3://lung/p", **options)
    assert raised.value.exit_code == 2
    assert all(word in str(raised.value) for word in words), raised.value


def write(path: Path, text: str, encoding: str = "utf-8") -> str:
    path.write_text(text, encoding=encoding)
    return path.as_uri()


def test_a_table_in_a_file_or_in_s3_names_films_by_path_or_id(
    store: Store, out: str, tmp_path: Path
) -> None:
    text = "film,patient\na/images/P7_left.png,Ann\nP7_right, Ann \nP12_1,Bob\n"
    table = read_table(write(tmp_path / "our patients.csv", text, "utf-8-sig"), store)
    store.write(f"{out}/patients.csv", text.encode())
    assert read_table(f"{out}/patients.csv", store) == table
    assigned = assign(recognise([NAMES]).films, by_table(table), "--patients")
    assert {film.id: film.patient for film in assigned} == {
        "P7_left": "Ann",
        "P7_right": "Ann",
        "P12_1": "Bob",
    }


@pytest.mark.parametrize(
    ("names", "line"),
    [
        (["a/images/1.png"], "a\\images\\1.png"),
        (["a/images/1.png"], "1.png"),
        (["a/images/Mu\u0308ller 1.png"], "M\u00fcller 1.png"),
        (["back\\slash.png"], "back\\slash.png"),
        (["=1+1.png"], "'=1+1.png"),
        (["images/-dash.png"], "'-dash.png"),
        (["'=1.png"], "'=1.png"),
        (["x/1.png", "1.png"], "1.png"),
        (["images/1.png"], "./images//1.png"),
    ],
    ids=[
        "backslashes",
        "bare name",
        "bare name, decomposed",
        "a backslash in the name",
        "escaped formula",
        "escaped formula, bare name",
        "an apostrophe in the name",
        "a path that is another film's bare name",
        "a path as find prints it",
    ],
)
def test_a_table_names_a_film_as_windows_and_spreadsheets_do(names: list[str], line: str) -> None:
    patients = patients_by_table(names, {line: "Ann"})
    assert patients.pop(names[-1]) == "Ann"
    assert set(patients.values()) <= {""}


def test_a_line_with_backslashes_names_the_film_that_has_them() -> None:
    """And not its neighbour at the path with slashes."""
    patients = patients_by_table(["a\\1.png", "a/1.png"], {"a\\1.png": "Ann"})
    assert patients == {"a\\1.png": "Ann", "a/1.png": ""}


def test_a_bare_name_of_two_films_is_refused_with_both_paths() -> None:
    films = recognise([["a/images/1.png", "b/images/1.png"]]).films
    with pytest.raises(ConfigError, match=r"'1\.png'.* 'a/images/1\.png' and 'b/images/1\.png'"):
        assign(films, by_table({"1.png": "Ann"}), "--patients")


def test_two_lines_that_give_a_film_different_patients_are_refused() -> None:
    films = recognise([["images/1.png"]]).films
    table = {"images/1.png": "Ann", "1": "Ann", "1.png": "Bob"}
    with pytest.raises(ConfigError, match=r"'images/1\.png' two patients, 'Ann' .* 'Bob' as '1\.p"):
        assign(films, by_table(table), "--patients")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id,patient\na,1\n", "is not a table.*film,patient"),
        ("", "names no film"),
        ("film,patient\n", "names no film"),
        ("film,patient\na\n", "line 2 lacks the film or the patient"),
        ("film,patient\na,\n", "line 2 lacks"),
        ("film,patient\na,1\na,2\n", "film 'a' has two patients, '1' and '2'"),
        ('film,patient\n"a,1\n', "is not a table.*film,patient"),
    ],
)
def test_a_file_that_is_not_a_table_of_patients_is_refused(
    store: Store, tmp_path: Path, text: str, words: str
) -> None:
    with pytest.raises(BadDataError, match=words):
        read_table(write(tmp_path / "patients.csv", text), store)


def test_a_table_of_another_encoding_and_an_absent_one_are_refused(
    store: Store, tmp_path: Path
) -> None:
    uri = write(tmp_path / "patients.csv", "film,patient\nä,1\n", "latin-1")
    with pytest.raises(BadDataError, match="not UTF-8"):
        read_table(uri, store)
    for absent in ((tmp_path / "none.csv").as_uri(), "s3://lung/none.csv"):
        with pytest.raises(NotFoundError, match=r"none\.csv"):
            read_table(absent, store)


def test_the_digest_depends_on_the_patients_and_not_on_the_order_of_the_lines() -> None:
    assert digest({"a": "1", "b": "2"}) == digest({"b": "2", "a": "1"})
    assert digest({"a": "1", "b": "2"}) != digest({"a": "2", "b": "1"})


@pytest.fixture
def films(tmp_path: Path) -> str:
    for number, name in enumerate(NAMES):
        path = tmp_path / "films" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(draw_pair(number)[0]))
    return (tmp_path / "films").as_uri()


def run(store: Store, out: str, source: str, **options: Any) -> Manifest:
    return download.run(DownloadConfig(source=source, out=out, **options), store)


def test_the_patients_are_in_the_rows_and_each_lookup_has_another_fingerprint(
    store: Store, out: str, films: str, tmp_path: Path
) -> None:
    plain = run(store, out, films)
    by_name = run(store, out, films, patient_pattern=r"^([^_]+)_")
    uri = write(tmp_path / "p.csv", "film,patient\nP7_left,7\nP7_right,7\nP12_1,12\n")
    tabled = run(store, out, films, patients=uri)
    manifests = (plain, by_name, tabled)
    patients = [[row["patient"] for row in raw_rows(store, raw)] for raw in manifests]
    assert patients == [["P12_1", "P7_left", "P7_right"], ["P12", "P7", "P7"], ["12", "7", "7"]]
    assert len({raw.fingerprint for raw in manifests}) == 3
    copy = tmp_path / "copy.csv"
    copy.write_text("film,patient\nP12_1,12\nP7_left,7\nP7_right,7\n")
    assert run(store, out, films, patients=copy.as_uri()).reused
    copy.write_text("film,patient\nP12_1,12\nP7_left,7\nP7_right,8\n")
    assert not run(store, out, films, patients=copy.as_uri()).reused


def test_the_number_of_patients_is_logged(
    store: Store, out: str, films: str, caplog: pytest.LogCaptureFixture
) -> None:
    for pattern, line in (("", "3 films of 3 patients"), (r"^([^_]+)_", "3 films of 2 patients")):
        caplog.clear()
        with caplog.at_level("INFO"):
            run(store, out, films, patient_pattern=pattern)
        assert [text for text in caplog.messages if "patients" in text] == [line]


def test_a_film_that_is_not_in_the_table_is_named(
    store: Store, out: str, films: str, tmp_path: Path
) -> None:
    uri = write(tmp_path / "p.csv", "film,patient\nP7_left,7\nP12_1,12\n")
    with pytest.raises(ConfigError, match=r"p\.csv finds no patient .*'a/images/P7_right\.png'"):
        run(store, out, films, patients=uri)


def test_films_numbered_as_in_chestxray14_are_told_where_a_patient_has_several(
    caplog: pytest.LogCaptureFixture,
) -> None:
    names = [f"images_001/images/{name}.png" for name in ("00000001_000", "00000002_000", "a_1")]
    warn_of_numbered_films(recognise([names]).films)
    assert not caplog.messages
    warn_of_numbered_films(recognise([[*names, "images_002/images/00000001_001.png"]]).films)
    assert caplog.messages[0].startswith("1 films have the number of another one in their names")
