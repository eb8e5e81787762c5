"""The tab "Training report" on a real api-server, with a real S3 server."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from tests.support.edits import byte_edits, json_edits, text_edits
from tests.support.pages import Page
from tests.support.report_server import DAG, FINGERPRINT, FOLDER, RUN, Served, api_server

pytestmark = [pytest.mark.airflow, pytest.mark.slow]

REPORT = b"<!doctype html><title>The report</title><style>p{color:red}</style><p>All of it"


@pytest.fixture(scope="module")
def served(s3: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with api_server(tmp_path_factory.mktemp("airflow"), s3) as running:
        yield running


@pytest.fixture
def training(served: Served) -> Served:
    """A run that has trained two of four epochs."""
    served.run(RUN, "running", download="success", preprocess="success", train="running")
    served.write_training(2, epochs=4)
    return served


def policy(answer: Any) -> dict[str, str]:
    parts = answer.headers["Content-Security-Policy"].split("; ")
    return {name: sources for name, _, sources in (part.partition(" ") for part in parts)}


def test_airflow_shows_both_tabs_on_every_run_and_loads_no_other_plugin(served: Served) -> None:
    headers = {"Authorization": f"Bearer {served.token('admin')}"}
    plugins = served.call("GET", "/api/v2/plugins", headers=headers).json()["plugins"]
    (plugin,) = (entry for entry in plugins if entry["source"].startswith("$PLUGINS_FOLDER"))
    assert plugin["source"] == "$PLUGINS_FOLDER/run_report.py"
    views = plugin["external_views"]
    assert [(view["name"], view["destination"]) for view in views] == [
        ("Training report", "dag_run"),
        ("Masks", "dag_run"),
    ]
    errors = served.call("GET", "/api/v2/plugins/importErrors", headers=headers).json()
    assert errors["total_entries"] == 0, errors
    served.run(RUN, "queued")
    cookies = {"_token": served.token("reader")}
    for view in views:
        href = view["href"].format(DAG_ID=DAG, RUN_ID=quote(RUN, safe=""))
        answer = served.call("GET", "/" + href, cookies=cookies)
        assert answer.status_code == 200
        assert f"{view['name']} · run {RUN}" in answer.text


@pytest.mark.parametrize("run_id", [RUN, "no-such-run"])
def test_without_a_log_in_nothing_is_disclosed(training: Served, run_id: str) -> None:
    answer = training.get(run_id, user="")
    assert answer.status_code == 401
    assert "Log in first" in answer.text
    assert run_id not in answer.text


def test_a_user_who_may_not_read_the_dag_is_refused(training: Served) -> None:
    answer = training.get(user="stranger")
    assert answer.status_code == 403
    assert "may not read this DAG" in answer.text


def test_a_forged_cookie_is_refused(training: Served) -> None:
    path = f"/training-report/dags/{DAG}/runs/{RUN}"
    header, _, signature = training.token("reader").split(".")
    for token in ("x", f"{header}.{header}.{signature}"):
        assert training.call("GET", path, cookies={"_token": token}).status_code in (401, 403)


@pytest.mark.parametrize(
    "run_id",
    [
        "no-such-run",
        "..",
        f"../{RUN}",
        f"..%2F{FOLDER}",
        "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        FOLDER,  # the run's folder in S3, not its id
        f"{RUN}/",
        f"{RUN}%00",
        f"{RUN}%0d%0aX-Odd:%20yes",
        f"{RUN}'%20or%20'1'='1",
        "%25",
        "é" * 300,
    ],
)
def test_a_run_that_airflow_does_not_know_is_not_found(training: Served, run_id: str) -> None:
    answer = training.get(run_id)
    assert answer.status_code == 404
    assert "X-Odd" not in answer.headers


def test_the_page_of_another_dags_run_shows_no_training(training: Served) -> None:
    training.run(RUN, "running", dag="lung_masks", train="running", publish="success")
    answer = training.get(dag="lung_masks")
    assert answer.status_code == 200
    assert "lung_masks trains nothing" in answer.text
    assert "0.7000" not in answer.text


def test_the_page_of_a_running_training_shows_its_last_rows_and_reloads(training: Served) -> None:
    answer = training.get()
    assert answer.status_code == 200
    assert 1 <= int(answer.headers["Refresh"]) <= 10
    text = Page(answer.content).text
    assert "Epoch 2 of 4" in text
    assert RUN in text
    # The second epoch: losses 0.6 / 2 and 0.7 / 2, Dice 0.7, learning rate and seconds.
    assert "2 · best 0.3000 0.3500 0.7000 3.00e-03 1.5" in text
    training.write_training(3, epochs=4)
    assert "Epoch 3 of 4" in training.get().text


def test_the_live_page_runs_no_script_and_loads_no_resource(training: Served) -> None:
    answer = training.get()
    page = Page(answer.content)
    tags = {tag for tag, _ in page.elements}
    assert tags & {"script", "link", "iframe", "object", "embed", "base", "form", "svg"} == set()
    (image,) = (attributes for tag, attributes in page.elements if tag == "img")
    assert str(image["src"]).startswith("data:image/svg+xml;base64,")
    rules = policy(answer)
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    assert rules["frame-ancestors"] == "'self'"
    assert "script-src" not in rules and "unsafe" not in answer.headers["Content-Security-Policy"]
    style = answer.text.partition("<style>")[2].partition("</style>")[0]
    digest = hashlib.sha256(style.encode()).digest()
    assert rules["style-src"] == f"'sha256-{base64.b64encode(digest).decode()}'"


@pytest.mark.parametrize("user", ["reader", "stranger", ""])
@pytest.mark.parametrize("run_id", [RUN, "no-such-run"])
def test_every_answer_forbids_caching_mime_sniffing_and_foreign_frames(
    training: Served, run_id: str, user: str
) -> None:
    answer = training.get(run_id, user=user)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert policy(answer)["default-src"] == "'none'"
    assert policy(answer)["frame-ancestors"] == "'self'"


def test_before_training_the_page_names_the_running_job(served: Served) -> None:
    run_id = "manual__early"
    served.run(run_id, "running", download="success", preprocess="running")
    text = Page(served.get(run_id).content).text
    assert "Training has not begun" in text
    assert "Preprocess is running" in text


def test_the_page_of_a_failed_training_shows_its_history(training: Served) -> None:
    training.run(RUN, "failed", train="failed", publish="upstream_failed")
    answer = training.get()
    assert "Training failed after epoch 2 of 4" in answer.text
    assert "0.7000" in answer.text
    assert "Refresh" not in answer.headers


def test_once_published_the_tab_is_the_report_itself(training: Served) -> None:
    report = f"{training.out}/runs/{FOLDER}/report.html"
    training.store.write(report, REPORT)
    training.run(RUN, "running", train="success", publish="running")
    assert "Trained for 2 epochs" in training.get().text, "the report is of an earlier try"
    training.run(RUN, "success", train="success", publish="success")
    answer = training.get()
    assert answer.content == REPORT
    assert "sandbox" in policy(answer)
    assert policy(answer)["img-src"] == "data:"
    assert "Refresh" not in answer.headers
    training.store.delete([report])
    assert "wrote no report" in training.get().text


def test_an_s3_that_does_not_answer_is_reported_within_seconds_and_airflow_goes_on(
    training: Served, unanswered: str
) -> None:
    extra = {"endpoint_url": unanswered}
    training.connect(extra=extra, password="S3cretNobodyMaySee")
    try:
        started = time.monotonic()
        answer = training.get()
        assert time.monotonic() - started < 20
    finally:
        training.connect()
    assert answer.status_code == 503
    assert "cannot be read" in answer.text
    assert policy(answer)["default-src"] == "'none'"
    for word in ("S3cret", "Traceback", "botocore", "File "):
        assert word not in answer.text
    assert training.get().status_code == 200


@pytest.fixture(params=["closed", "silent"])
def unanswered(request: pytest.FixtureRequest) -> Iterator[str]:
    """An address where no server listens, or one that accepts connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if request.param == "silent":
            listener.listen()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_the_page_names_a_missing_connection(training: Served) -> None:
    training.disconnect()
    try:
        answer = training.get()
    finally:
        training.connect()
    assert answer.status_code == 503
    assert "lung_s3" in answer.text and "not defined" in answer.text


def test_the_page_reports_refused_keys_without_showing_them(training: Served) -> None:
    training.connect(login="AKIDOFNOBODY", password="S3cretNobodyMaySee")
    try:
        answer = training.get()
    finally:
        training.connect()
    assert answer.status_code == 503
    assert "S3 answered" in answer.text
    assert "S3cret" not in answer.text and "AKIDOFNOBODY" not in answer.text


@pytest.mark.parametrize(
    "pointer",
    [
        {"trained": "s3://lung/elsewhere/secret", "epochs": 4},
        {"trained": "0123456789abcdef/..", "epochs": 4},
        {"trained": f"s3://lung/trained/{FINGERPRINT}"},
        ["train"],
    ],
)
def test_a_train_json_that_train_did_not_write_is_refused(training: Served, pointer: Any) -> None:
    training.store.write_json(f"{training.out}/runs/{FOLDER}/train.json", pointer)
    answer = training.get()
    assert answer.status_code == 503
    assert "train.json" in answer.text


@pytest.mark.parametrize("name", ["train.json", "history.json"])
def test_every_edit_of_a_file_gives_a_page_or_says_which_file_cannot_be_read(
    training: Served, name: str
) -> None:
    folder = {"train.json": f"runs/{FOLDER}", "history.json": f"trained/{FINGERPRINT}"}[name]
    uri = f"{training.out}/{folder}/{name}"
    written = training.store.read(uri)
    edits = [*byte_edits(written), *text_edits(written), *json_edits(json.loads(written), each=3)]
    statuses: Counter[int] = Counter()
    for edit in edits:
        training.store.write(uri, edit.data)
        answer = training.get()
        statuses[answer.status_code] += 1
        if answer.status_code == 503:
            assert name in answer.text and "cannot be read" in answer.text, edit.name
        else:
            assert answer.status_code == 200, f"{edit.name}: {answer.status_code} {answer.text}"
            assert "nan" not in answer.text and "inf " not in answer.text, edit.name
    assert statuses[503] > len(edits) / 2, statuses


def test_an_object_above_its_size_limit_is_not_shown(training: Served) -> None:
    folder = f"{training.out}/trained/{FINGERPRINT}"
    training.store.write(f"{folder}/curves.svg", b" " * (2**22 + 1))
    answer = training.get()
    assert answer.status_code == 503
    assert "larger than 4 MiB" in answer.text


def test_the_application_does_not_publish_its_api_schema(served: Served) -> None:
    for path in ("/training-report/docs", "/training-report/openapi.json"):
        assert served.call("GET", path).status_code == 404
