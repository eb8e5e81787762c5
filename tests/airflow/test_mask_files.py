"""The masks' page reads S3: what the jobs wrote, what somebody edited, and what is gone."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from jobs.storage.s3 import Store
from tests.support.edits import Edit, byte_edits, json_edits, text_edits
from tests.support.masked_run import (
    INBOX_MODEL,
    doubtful,
    failed,
    films,
    masked,
    picture_of,
    write_masks,
)

if TYPE_CHECKING:
    # Airflow is not in every environment that collects this module.
    from lung.mask_files import MaskFiles
    from lung.mask_sheet import Sheet

pytestmark = pytest.mark.airflow

RUN = "run-1"
FINGERPRINT = "0123456789abcdef"


@pytest.fixture
def folder(out: str) -> str:
    """The URI of predict's folder."""
    return f"{out}/predictions/{FINGERPRINT}"


@pytest.fixture
def files(store: Store, out: str, folder: str, monkeypatch: pytest.MonkeyPatch) -> MaskFiles:
    """The files of a run whose predict has started."""
    from lung import s3_files
    from lung.mask_files import MaskFiles

    monkeypatch.setenv("LUNG_BUCKET_URI", out)
    monkeypatch.setattr(s3_files, "_client", lambda: store._client)
    pointer = {"predictions": folder, "films": 402, "parts": 7}
    store.write_json(f"{out}/runs/{RUN}/predict.json", pointer)
    return MaskFiles(RUN)


def sheet_of(files: MaskFiles) -> Sheet:
    sheet = files.sheet(files.predictions())
    assert sheet
    return sheet


def test_before_predict_has_started_there_is_nothing(files: MaskFiles) -> None:
    from lung.mask_files import MaskFiles

    early = MaskFiles("early")
    assert early.predictions() is None
    assert early.sheet() is None
    assert early.table() is None
    assert files.sheet(files.predictions()) is None


def test_while_predict_runs_its_parts_are_counted(
    store: Store, files: MaskFiles, folder: str
) -> None:
    from lung.mask_files import Predictions

    predictions = files.predictions()
    assert predictions == Predictions(folder, 402, 7)
    assert files.parts_written(predictions) == 0
    store.write_many((f"{folder}/rows/part-{n:05}.jsonl.gz", b"x") for n in range(3))
    assert files.parts_written(predictions) == 3


def test_each_page_of_the_sheet_has_its_films_and_their_pictures(
    store: Store, files: MaskFiles, folder: str
) -> None:
    rows = [*films(400), failed("broken.png"), doubtful("doubtful.png")]
    write_masks(store, folder, rows, run_id=RUN, skipped={"masks": 2})
    sheet = sheet_of(files)
    assert sheet.sections == {"review": 1, "failed": 1, "others": 400}
    assert (sheet.run_id, sheet.skipped, sheet.masks) == (RUN, {"masks": 2}, folder)
    names = []
    for page in (1, 2, 3):
        of_page = files.films(sheet, page)
        pictures = files.previews(sheet, of_page)
        expected = [picture_of(film.name) if film.is_masked else None for film in of_page]
        assert pictures == expected
        names += [film.name for film in of_page]
    assert names == ["doubtful.png", "broken.png", *(row["id"] for row in rows[:400])]


def test_a_page_is_read_in_a_few_ranges_and_not_whole(
    store: Store, files: MaskFiles, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 2000 films every tenth is for review, so that page 1 has films of every pack."""
    from lung import s3_files

    rows = [doubtful(f"{n:04}") if n % 10 == 0 else masked(f"{n:04}") for n in range(2000)]
    write_masks(store, folder, rows)
    sheet = sheet_of(files)
    sizes: list[int] = []
    read = s3_files.S3Files.read_range

    def note(self: Any, uri: str, start: int, stop: int) -> bytes | None:
        sizes.append(stop - start)
        return read(self, uri, start, stop)

    monkeypatch.setattr(s3_files.S3Files, "read_range", note)
    for page, packs in ((1, 32), (5, 5)):
        sizes.clear()
        of_page = files.films(sheet, page)
        assert all(files.previews(sheet, of_page))
        assert len(sizes) <= 1 + packs


def test_ranges_far_apart_in_a_pack_are_read_apart() -> None:
    from lung import mask_files

    size, gap = 8000, mask_files.GAP
    places = [("a", 0, size), ("a", size, size), ("a", 2 * size + gap + 1, size), ("b", 0, size)]
    assert [len(span) for span in mask_files._spans(places)] == [2, 1, 1]
    close = [("a", n * size, size) for n in range(2000)]
    spans = list(mask_files._spans(close))
    assert all(sum(place[2] for place in span) <= mask_files.LARGEST_RANGE for span in spans)
    assert [place for span in spans for place in span] == close


def test_the_sheet_of_an_inbox_is_in_the_runs_folder_and_its_pictures_beside_the_masks(
    store: Store, out: str, files: MaskFiles
) -> None:
    masks = f"{out}/masks/lung-unet/{FINGERPRINT}"
    counts = {"films": 9, "new": 3}
    write_masks(
        *(store, masks, films(3)), sheet=f"{out}/runs/{RUN}", model=INBOX_MODEL, counts=counts
    )
    sheet = files.sheet()
    assert sheet and sheet.masks == masks
    assert sheet.counts == counts
    assert all(files.previews(sheet, files.films(sheet, 1)))


@pytest.mark.parametrize("damage", ["deleted", "cut", "zeros", "replaced"])
def test_a_picture_that_is_gone_or_damaged_is_left_out(
    store: Store, files: MaskFiles, folder: str, damage: str
) -> None:
    write_masks(store, folder, films(3))
    (pack,) = store.list_objects(f"{folder}/previews/")
    data = store.read(pack.uri)
    if damage == "deleted":
        store.delete([pack.uri])
    else:
        new = {"cut": data[: len(data) // 2], "zeros": bytes(len(data)), "replaced": b"x"}
        store.write(pack.uri, new[damage])
    sheet = sheet_of(files)
    of_page = files.films(sheet, 1)
    pictures = files.previews(sheet, of_page)
    assert len(pictures) == 3
    assert pictures[2] is None
    assert (pictures[0] is None) == (damage != "cut")


TABLE = [
    {"id": "a", "origin": "a.png", "status": "ok", "quality": "0.9", "review": "False"},
    {"id": "b", "origin": "b.png", "status": "ok", "quality": "0.4", "review": "True"},
    {"id": "c", "origin": "c.png", "status": "failed", "reason": "truncated"},
]


def table_bytes(rows: list[dict[str, str]], name: str = "origin") -> bytes:
    text = io.StringIO()
    columns = ["id", name, "status", "quality", "review", "reason"]
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows({name if key == "origin" else key: row[key] for key in row} for row in rows)
    return text.getvalue().encode()


def test_the_tables_of_earlier_versions_are_counted_and_doubtful_films_listed(
    store: Store, out: str, folder: str, files: MaskFiles
) -> None:
    from lung.mask_files import MaskFiles, Predictions

    inputs = {"predictions": {"uri": f"{folder}/manifest.json", "content_hash": "x"}}
    store.write_json(f"{out}/runs/old/run.json", {"inputs": inputs})
    store.write(f"{folder}/predictions.csv", table_bytes(TABLE))
    store.write(f"{out}/runs/old/masks.csv", table_bytes(TABLE, "film"))
    old = MaskFiles("old")
    predictions = old.predictions()
    assert predictions == Predictions(folder)
    for table in (old.table(predictions), old.table()):
        assert table
        assert (table.films, table.sections) == (3, {"review": 1, "failed": 1, "others": 1})
        assert [film.name for film in table.listed] == ["b.png", "c.png"]
        assert table.listed[1].reason == "truncated"


def test_a_table_too_large_for_a_page_is_named_with_its_place(
    store: Store, out: str, files: MaskFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lung import mask_files
    from lung.s3_files import UnreadableError

    monkeypatch.setattr(mask_files, "LARGEST_TABLE", 10)
    store.write(f"{out}/runs/{RUN}/masks.csv", table_bytes(TABLE))
    with pytest.raises(UnreadableError, match=r"masks\.csv is larger than"):
        files.table()


def read_all(files: MaskFiles) -> None:
    """As the page does."""
    predictions = files.predictions()
    if predictions and (sheet := files.sheet(predictions)):
        for page in range(1, min(3, len(sheet.pages))):
            files.previews(sheet, files.films(sheet, page))
    elif predictions:
        files.parts_written(predictions)


def of_json(data: bytes) -> list[Edit]:
    return [*byte_edits(data), *text_edits(data), *json_edits(json.loads(data), each=4)]


def of_lines(data: bytes) -> list[Edit]:
    first, *rest = data.splitlines(keepends=True)
    edits = [*byte_edits(data), *text_edits(data)]
    for edit in json_edits(json.loads(first), each=4):
        # Padded to the length of the row, so that the page still ends where it did.
        line = edit.data.ljust(len(first) - 1) + b"\n"
        edits.append(Edit(edit.name, line + b"".join(rest)))
    return edits


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "edits_of"),
    [("predict.json", of_json), ("sheet.json", of_json), ("sheet.jsonl", of_lines)],
)
def test_every_edit_of_a_file_is_read_or_refused_by_its_name(
    store: Store,
    out: str,
    folder: str,
    files: MaskFiles,
    name: str,
    edits_of: Callable[[bytes], list[Edit]],
) -> None:
    from lung.mask_files import MaskFiles
    from lung.s3_files import UnreadableError

    rows = [doubtful("doubtful.png"), *films(201), failed("broken.png")]
    write_masks(store, folder, rows, run_id=RUN, skipped={"masks": 1}, counts={"films": 3})
    uri = f"{out}/runs/{RUN}/{name}" if name == "predict.json" else f"{folder}/{name}"
    outcomes: Counter[str] = Counter()
    for edit in edits_of(store.read(uri)):
        store.write(uri, edit.data)
        try:
            read_all(MaskFiles(RUN))
            outcomes["read"] += 1
        except UnreadableError as error:
            assert name in str(error), edit.name
            outcomes["refused"] += 1
    assert outcomes["refused"] > outcomes["read"] / 2, outcomes


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xfe", b"a,b\n1,2\n", b'"' + b"x" * 200_000, b"\0\n1\n"]
)
def test_a_table_that_no_job_wrote_is_refused_by_its_name(
    store: Store, out: str, files: MaskFiles, data: bytes
) -> None:
    from lung.s3_files import UnreadableError

    store.write(f"{out}/runs/{RUN}/masks.csv", data)
    with pytest.raises(UnreadableError, match=r"masks\.csv was not written by"):
        files.table()


@pytest.mark.parametrize(
    "key",
    [
        "../../../runs/other/secret",
        "/etc/passwd",
        "previews/../masks/a.png",
        "masks/a.png",
        "previews/0123456789abcdef.bin\n",
    ],
)
def test_no_row_leads_to_an_object_that_is_no_pack(
    store: Store, files: MaskFiles, folder: str, key: str
) -> None:
    from lung.s3_files import UnreadableError

    write_masks(store, folder, films(1))
    line = json.loads(store.read(f"{folder}/sheet.jsonl"))
    line["preview"]["key"] = key
    sheet = json.loads(store.read(f"{folder}/sheet.json"))
    changed = json.dumps(line).encode() + b"\n"
    store.write(f"{folder}/sheet.jsonl", changed)
    store.write_json(f"{folder}/sheet.json", sheet | {"pages": [0, len(changed)]})
    with pytest.raises(UnreadableError, match=r"sheet\.jsonl"):
        files.films(sheet_of(files), 1)


@pytest.mark.parametrize("uri", ["s3://other/secrets", "s3://lung/predictions/..", ""])
def test_no_pointer_leads_out_of_the_folder_of_predictions(
    store: Store, out: str, files: MaskFiles, uri: str
) -> None:
    from lung.s3_files import UnreadableError

    pointer = {"predictions": uri, "films": 1, "parts": 1}
    store.write_json(f"{out}/runs/{RUN}/predict.json", pointer)
    with pytest.raises(UnreadableError, match=r"predict\.json was not written by predict"):
        files.predictions()


@pytest.mark.parametrize("name", ["..", "a/b", "", "x" * 200])
def test_no_sheet_of_an_inbox_leads_out_of_the_folder_of_masks(
    store: Store, out: str, files: MaskFiles, name: str
) -> None:
    from lung.s3_files import UnreadableError

    for field in ("name", "version"):
        model = INBOX_MODEL | {field: name}
        run = f"{out}/runs/{RUN}"
        write_masks(store, f"{out}/masks/x/y", films(1), sheet=run, model=model)
        with pytest.raises(UnreadableError, match=r"sheet\.json was not written by"):
            files.sheet()


def test_a_page_that_takes_too_long_ends(
    store: Store, files: MaskFiles, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lung import s3_files
    from lung.mask_files import MaskFiles
    from lung.s3_files import UnreadableError

    write_masks(store, folder, films(1))
    monkeypatch.setattr(s3_files, "PAGE_SECONDS", -1)
    with pytest.raises(UnreadableError, match="took more than"):
        MaskFiles(RUN).predictions()
