"""The tab "Masks" of a run, on a real api-server with a real S3 server."""

from __future__ import annotations

import base64
import hashlib
import re
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.masked_run import (
    INBOX_MODEL,
    doubtful,
    failed,
    films,
    picture_of,
    write_masks,
)
from tests.support.pages import Page
from tests.support.report_server import FINGERPRINT, FOLDER, RUN, Served, api_server

pytestmark = [pytest.mark.airflow, pytest.mark.slow]

EARLIER = Path(__file__).parents[1] / "fixtures" / "bucket-0.1.0.tar.xz"
OTHER = "manual__2026-11-24T00:00:00+00:00"
OTHER_FOLDER = "manual__2026-11-24T00-00-00-00-00"


@pytest.fixture(scope="module")
def served(s3: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with api_server(tmp_path_factory.mktemp("airflow"), s3) as running:
        yield running


@pytest.fixture
def folder(served: Served) -> str:
    return f"{served.out}/predictions/{FINGERPRINT}"


@pytest.fixture
def masked(served: Served, folder: str) -> Served:
    """A finished run of lung_segmentation with 400 masks, one of them doubtful, and a bad film."""
    served.run(RUN, "success", train="success", predict="success", publish="success")
    pointer = {"predictions": folder, "films": 401, "parts": 7}
    served.store.write_json(f"{served.out}/runs/{FOLDER}/predict.json", pointer)
    rows = [*films(399), doubtful("doubtful.png", 0.4), failed("broken.png")]
    write_masks(served.store, folder, rows, run_id=FOLDER)
    return served


@pytest.fixture
def inbox(served: Served) -> Served:
    """A finished run of lung_masks with 2 new films of 10."""
    served.run(RUN, "success", dag="lung_masks", inbox="success")
    write_masks(
        *(served.store, f"{served.out}/masks/lung-unet/{INBOX_MODEL['version']}", films(2)),
        sheet=f"{served.out}/runs/{FOLDER}",
        run_id=FOLDER,
        model=INBOX_MODEL,
        counts={"films": 10, "new": 2},
        skipped={"text and metadata": 3},
    )
    return served


def masks(served: Served, page: str = "1", **options: Any) -> Any:
    run_id = options.pop("run_id", RUN)
    return served.get(f"{run_id}?page={page}", tab="masks/", **options)


def pictures(answer: Any) -> list[bytes]:
    sources = [str(e["src"]) for tag, e in Page(answer.content).elements if tag == "img"]
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    return [base64.b64decode(source.partition(",")[2]) for source in sources]


def test_the_first_page_has_masks_for_review_first_with_reasons_and_pictures(
    masked: Served,
) -> None:
    answer = masks(masked)
    assert answer.status_code == 200
    text = Page(answer.content).text
    assert text.index("doubtful.png") < text.index("broken.png") < text.index("film 00000.png")
    assert "quality 0.4 is below 0.8" in text
    assert "truncated" in text
    assert "version 0123456789abcdef, validation Dice 0.942" in text
    found = pictures(answer)
    assert len(found) == 199
    assert found[0] == picture_of("doubtful.png")


def test_the_other_pages_have_the_other_films(masked: Served) -> None:
    names = ["doubtful.png", *(row["id"] for row in films(399))]
    found = [picture for page in ("1", "2", "3") for picture in pictures(masks(masked, page))]
    assert found == [picture_of(name) for name in names]
    links = [e.get("href") for tag, e in Page(masks(masked, "2").content).elements if tag == "a"]
    assert links.count("?page=3") == 2


@pytest.mark.parametrize("page", ["0", "4", "-1", "x", "", "1.0", "9" * 40, "１", "%00"])
def test_a_page_that_the_run_does_not_have_is_not_found(masked: Served, page: str) -> None:
    answer = masks(masked, page)
    assert answer.status_code == 404
    assert "have the pages 1 to 3" in answer.text


def test_without_a_log_in_or_the_right_to_read_the_dag_no_mask_is_shown(masked: Served) -> None:
    for page in ("1", "2", "x"):
        for user, status in (("", 401), ("stranger", 403)):
            answer = masks(masked, page, user=user)
            assert answer.status_code == status
            assert "doubtful" not in answer.text and "data:image" not in answer.text


@pytest.mark.parametrize(
    "run_id", ["no-such-run", f"..%2F{FOLDER}", FOLDER, f"{RUN}/", f"{RUN}%00", f"{RUN}%0d%0aX: y"]
)
def test_a_run_that_airflow_does_not_know_has_no_masks(masked: Served, run_id: str) -> None:
    answer = masked.get(run_id, tab="masks/")
    assert answer.status_code == 404
    assert "data:image" not in answer.text


def test_a_run_of_another_dag_with_the_same_id_shows_no_masks(masked: Served) -> None:
    masked.run(RUN, "success", dag="other", predict="success")
    answer = masks(masked, dag="other")
    assert answer.status_code == 200
    assert "other masks no films" in answer.text
    assert "data:image" not in answer.text


def test_the_page_runs_no_script_loads_nothing_and_is_kept_nowhere(masked: Served) -> None:
    answer = masks(masked)
    tags = {tag for tag, _ in Page(answer.content).elements}
    assert tags & {"script", "link", "object", "embed", "base", "form", "svg", "iframe"} == set()
    assert answer.headers["Cache-Control"] == "no-store"
    policy = answer.headers["Content-Security-Policy"]
    assert "unsafe" not in policy and "script-src" not in policy
    assert "default-src 'none'" in policy and "frame-ancestors 'self'" in policy
    style = answer.text.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy


def test_nothing_of_a_film_is_kept_on_the_servers_disk(masked: Served) -> None:
    assert pictures(masks(masked))
    kept = (path for path in masked.home.rglob("*") if path.is_file())
    assert [path for path in kept if b"doubtful.png" in path.read_bytes()] == []


def test_masks_that_an_earlier_run_made_are_shown_with_its_name(
    masked: Served, folder: str
) -> None:
    masked.run(OTHER, "success", predict="success")
    pointer = {"predictions": folder, "films": 401, "parts": 7}
    masked.store.write_json(f"{masked.out}/runs/{OTHER_FOLDER}/predict.json", pointer)
    text = Page(masks(masked, run_id=OTHER).content).text
    assert f"The run {FOLDER} made them, this one reused them." in text


def test_the_run_of_an_inbox_shows_its_masks_and_what_was_passed_over(inbox: Served) -> None:
    answer = inbox.get(dag="lung_masks", tab="masks/")
    text = Page(answer.content).text
    assert "2 masks" in text
    assert "Films in the inbox 10 Done before 8 Masks 2" in text
    assert "passed over: text and metadata 3" in text
    assert "By the model lung-unet, version 0123456789abcdef" in text
    assert pictures(answer) == [picture_of(row["id"]) for row in films(2)]


def test_a_failed_inbox_shows_its_error_above_the_masks_that_it_made(inbox: Served) -> None:
    inbox.run(RUN, "failed", dag="lung_masks")
    error = "The job ended with exit code 69. Its last line: ward/a.png did not arrive whole"
    inbox.add_try("inbox", {"try": 3, "error": error}, dag="lung_masks")
    answer = inbox.get(dag="lung_masks", tab="masks/")
    text = Page(answer.content).text
    assert "inbox failed on try 3 of 3" in text
    assert text.index("ward/a.png did not arrive whole") < text.index("film 00000.png")
    assert len(pictures(answer)) == 2


def test_while_predict_runs_the_page_says_how_far_it_is_and_reloads(served: Served) -> None:
    folder = f"{served.out}/predictions/{'1' * 16}"
    served.run(RUN, "running", train="success", predict="running")
    pointer = {"predictions": folder, "films": 100, "parts": 8}
    served.store.write_json(f"{served.out}/runs/{FOLDER}/predict.json", pointer)
    served.store.write_many((f"{folder}/rows/part-{n:05}.jsonl.gz", b"x") for n in range(3))
    answer = masks(served)
    assert "Masking: 3 of 8 parts" in answer.text
    assert 1 <= int(answer.headers["Refresh"]) <= 10
    served.run(RUN, "failed", train="success", predict="failed")
    answer = masks(served)
    assert "Masking stopped after 3 of 8 parts" in answer.text
    assert "Refresh" not in answer.headers


def test_before_the_masks_the_page_says_so(served: Served) -> None:
    served.run(OTHER, "running", dag="lung_masks", inbox="running")
    served.store.delete([f"{served.out}/runs/{OTHER_FOLDER}/sheet.json"])
    assert "Masking has begun" in masks(served, run_id=OTHER, dag="lung_masks").text
    served.run("manual__early", "running", train="running")
    assert "Masking has not begun" in masks(served, run_id="manual__early").text


def test_a_run_of_version_0_1_0_is_shown_as_a_list_without_pictures(served: Served) -> None:
    with tarfile.open(EARLIER) as archive:
        for member in archive:
            if member.isfile() and (content := archive.extractfile(member)):
                served.store.write(f"{served.out}/{member.name}", content.read())
    served.run("first", "success", train="success", predict="success", publish="success")
    served.run("daily", "success", dag="lung_masks", inbox="success")
    for answer, film in (
        (masks(served, run_id="first"), "MCUCXR_0001_1.png"),
        (masks(served, run_id="daily", dag="lung_masks"), "inbox/new-1.png"),
    ):
        assert answer.status_code == 200
        text = Page(answer.content).text
        assert "An earlier version made these masks and kept no pictures" in text
        assert film in text
        assert pictures(answer) == []


@pytest.mark.parametrize("name", ["sheet.json", "sheet.jsonl"])
def test_a_damaged_sheet_is_named_and_tried_again(masked: Served, folder: str, name: str) -> None:
    masked.store.write(f"{folder}/{name}", b"{}\n")
    answer = masks(masked)
    assert answer.status_code == 503
    assert f"{folder}/{name}" in answer.text
    assert int(answer.headers["Refresh"]) > 0
    assert answer.headers["Cache-Control"] == "no-store"


def test_a_picture_that_is_gone_leaves_the_page_as_it_is(masked: Served, folder: str) -> None:
    masked.store.delete([pack.uri for pack in masked.store.list_objects(f"{folder}/previews/")])
    answer = masks(masked)
    assert answer.status_code == 200
    assert pictures(answer) == []
    assert Page(answer.content).text.count("No picture") == 200


def test_an_s3_that_does_not_answer_is_a_page_within_seconds(masked: Served) -> None:
    masked.connect(extra={"endpoint_url": "http://127.0.0.1:1"})
    try:
        started = time.monotonic()
        answer = masks(masked)
        assert time.monotonic() - started < 20
    finally:
        masked.connect()
    assert answer.status_code == 503
    assert "cannot be read" in answer.text


def test_of_twenty_thousand_films_a_page_is_two_small_reads(
    masked: Served, folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = films(20_000)
    write_masks(masked.store, folder, rows, run_id=FOLDER)
    started = time.monotonic()
    answer = masks(masked, "50")
    seconds = time.monotonic() - started
    assert pictures(answer) == [picture_of(row["id"]) for row in rows[49 * 200 : 50 * 200]]
    pages = re.findall(r'page=(\d+)"', answer.text)
    assert list(dict.fromkeys(pages)) == ["1", "48", "49", "51", "52", "100"]
    with capsys.disabled():
        print(f"  page 50 of 100: {seconds:.2f} s, {len(answer.content):,} bytes")
