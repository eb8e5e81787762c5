"""A CSV of names and values as Excel, LibreOffice and people write it."""

from __future__ import annotations

import pytest

from jobs.errors import BadDataError
from jobs.sources.lookup_table import parse_lookup
from tests.support.archives import zipped

PATIENTS = {"images/a.png": "P1", "images/ä 2.png": "P2"}
PLAIN = "film,patient\nimages/a.png,P1\nimages/ä 2.png,P2\n"


def parsed(data: bytes | str) -> dict[str, str]:
    data = data.encode() if isinstance(data, str) else data
    return parse_lookup(data, "s3://lung/patients.csv", "film", "patient")


def refusal(data: bytes | str) -> str:
    with pytest.raises(BadDataError) as raised:
        parsed(data)
    message = str(raised.value)
    assert message.startswith("s3://lung/patients.csv") and "\n" not in message
    return message


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["Unix", "Windows", "old Mac"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", ", ", "; "])
def test_delimiters_line_ends_and_encodings_do_not_matter(
    delimiter: str, end: str, encoding: str
) -> None:
    text = PLAIN.replace(",", delimiter).replace("\n", end)
    assert parsed(text.encode(encoding)) == PATIENTS


def test_utf_16_of_a_big_endian_machine_is_read_by_its_mark() -> None:
    assert parsed(b"\xfe\xff" + PLAIN.encode("utf-16-be")) == PATIENTS


@pytest.mark.parametrize(
    "text",
    [
        PLAIN.replace("film,patient", "Film,PATIENT"),
        PLAIN.replace("film,patient", " film , patient "),
        '"film";"patient"\n"images/a.png";"P1"\n"images/ä 2.png";"P2"\n',
        '"film"\t"patient"\n"images/a.png"\t"P1"\n"images/ä 2.png"\t"P2"\n',
        'film, "patient"\nimages/a.png, "P1"\n"images/ä 2.png", "P2"',
        "sep=;\r\nfilm;patient\r\nimages/a.png;P1\r\nimages/ä 2.png;P2\r\n",
        '"sep=|"\nfilm|patient\nimages/a.png|P1\nimages/ä 2.png|P2\n',
        "film,patient,,\nimages/a.png,P1,,\nimages/ä 2.png,P2,,,,\n,,,\n",
        "\n\nfilm,patient\n\nimages/a.png,P1\n \nimages/ä 2.png,P2\n\n",
        "age,patient,film\n40,P1,images/a.png\n,P2,images/ä 2.png\n",
    ],
    ids=[
        "capitals",
        "spaces",
        "quoted, semicolons",
        "quoted, tabs",
        "quoted after a space",
        "Excel's first line",
        "Excel's first line quoted",
        "empty columns at the end",
        "blank lines",
        "other columns",
    ],
)
def test_what_spreadsheets_add_does_not_matter(text: str) -> None:
    assert parsed(text) == PATIENTS


def test_nihs_table_gives_patients_by_its_own_columns() -> None:
    heading = "Image Index,Finding Labels,Follow-up #,Patient ID,OriginalImage[Width,Height],\n"
    rows = (
        "00000001_000.png,Cardiomegaly|Emphysema,0,1,2682,2749,\n00000002_000.png,,0,2,2500,2048,\n"
    )
    assert parsed(heading + rows) == {"00000001_000.png": "1", "00000002_000.png": "2"}
    assert parsed("film,image index,patient\na.png,x,P1\n") == {"a.png": "P1"}


def test_a_quoted_cell_keeps_its_separators_quotes_and_line_breaks() -> None:
    text = 'film,patient\r\n"a,1.png",P1\r\n"b;""2"".png",P2\r\n"c\rd\ne.png",P3\r\n'
    assert parsed(text) == {"a,1.png": "P1", 'b;"2".png': "P2", "c\rd\ne.png": "P3"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("images/a.png,P1\n", ["is 'images/a.png,P1' instead of the heading film,patient"]),
        ("film\nimages/a.png\n", ["is 'film' instead of the heading film,patient"]),
        ("film|patient\na|1\n", ["is 'film|patient' instead"]),
        ("sep=;\nfilm,patient\na,1\n", ["is 'film,patient' instead"]),
        ("film,patient,Film\na,1,b\n", ["line 1 has two columns 'film'"]),
        ("film,patient\na,1.png,P1\n", ["line 2 has 3 cells, the heading 2", "quotes"]),
        ("film,patient\na;1\n", ["line 2 lacks the film or the patient"]),
        ("sep=,\nfilm,patient\n\na,1\nb\n", ["line 5 lacks the film or the patient"]),
        (
            "film,patient\na,1\nb,2\na,3\n",
            ["'a' has two patients, '1' and '3': remove", "lines 2 and 4"],
        ),
        ('film,patient\n"a,1\n', ["is not a table of patients (line 2: ", "film,patient"]),
        ('film,patient\na,1\n"b" ,2\n', ["is not a table of patients (line 3: "]),
        ("<html><p>Log in</p></html>", ["is '<html><p>Log in</p></html>' instead"]),
    ],
    ids=[
        "no heading",
        "one column",
        "another delimiter",
        "another delimiter than stated",
        "a column twice",
        "separator in a name",
        "semicolon below a comma",
        "lines are counted",
        "two patients",
        "open quote",
        "text behind a quote",
        "web page",
    ],
)
def test_a_doubtful_table_is_refused_with_its_line(text: str, words: list[str]) -> None:
    message = refusal(text)
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (PLAIN.encode("cp1252"), "is not UTF-8 (line 3: "),
        (PLAIN.replace("\n", "\r").encode("cp1252"), "is not UTF-8 (line 3: "),
        ("film,patient\n患者.png,1\n".encode("cp932"), "is not UTF-8 (line 2: "),
        (PLAIN.encode("utf-16-le"), "has NUL bytes"),
        (PLAIN.encode("utf-32"), "has NUL bytes"),
        (b"\xff\xfef\0i\0l", "is not UTF-16 (line 1: "),
        (zipped({"[Content_Types].xml": b"<Types/>"}), "is no CSV but an Office document"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(99), "is no CSV but an Office document"),
    ],
    ids=["cp1252", "cp1252 of an old Mac", "cp932", "no mark", "UTF-32", "cut", "xlsx", "xls"],
)
def test_another_encoding_is_not_guessed(data: bytes, words: str) -> None:
    message = refusal(data)
    assert words in message and "save it as CSV UTF-8" in message


def test_a_heading_of_a_million_cells_is_read_in_one_pass() -> None:
    """A pass for each cell would outlast the test's time limit by far."""
    with pytest.raises(BadDataError, match=r"^a\.csv names no film"):
        parse_lookup(b"film,patient," + b"ab," * 1_300_000, "a.csv", "film", "patient")
