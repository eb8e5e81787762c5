"""What the tab says of failed and retried tasks, on a real api-server and its database."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.pages import Page
from tests.support.report_server import FOLDER, RUN, Served, api_server

pytestmark = [pytest.mark.airflow, pytest.mark.slow]

ERROR = (
    "The job ended with exit code 65: bad data. Mend or remove the films that the log names, then "
    "clear this task"
)
LAST_LINE = "BadDataError: no film of the split val is left: 3 films, 3 in train"
# Tasks that had not begun when the run failed.
REST = {"predict": "upstream_failed", "evaluate": "upstream_failed", "publish": "upstream_failed"}


@pytest.fixture(scope="module")
def server(s3: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with api_server(tmp_path_factory.mktemp("airflow"), s3) as running:
        yield running


@pytest.fixture
def served(server: Served) -> Served:
    server.run(RUN, "failed", download="success", preprocess="success")
    server.store.delete([f"{server.out}/runs/{FOLDER}/train.json"])
    return server


def text_of(served: Served) -> str:
    answer = served.get()
    assert answer.status_code == 200
    return Page(answer.content).text


def test_a_failed_run_shows_its_error_with_the_remedy_and_the_jobs_last_line(
    served: Served,
) -> None:
    error = f"{ERROR}. Its last line: {LAST_LINE}"
    served.add_try("train", {"try": 1, "error": error}, number=1)
    text = text_of(served)
    assert "train failed on try 1 of 3. It is not retried." in text
    assert f"{ERROR} The last line of its job: {LAST_LINE}" in text
    assert "log says why" not in text


def test_a_retried_task_shows_after_which_error_and_that_it_is_retried(served: Served) -> None:
    served.run(RUN, "running", download="success")
    served.add_try(
        "train", {"try": 1, "error": "the engine went away"}, state="up_for_retry", number=1
    )
    text = text_of(served)
    assert "Training is retried" in text
    assert "train failed on try 1 of 3. Try 2 starts" in text
    assert "the engine went away" in text
    assert "train failed, is retried" in text, "the state in the list of the jobs"
    assert "up for retry" not in text


def test_the_next_try_shows_its_number_and_not_the_error_of_an_earlier_one(served: Served) -> None:
    served.run(RUN, "running", download="success")
    served.add_try("train", {"try": 1, "error": "an old error"}, state="running", number=2)
    text = text_of(served)
    assert "train running, try 2 of 3" in text
    assert "an old error" not in text
    served.run(RUN, "failed", download="success")
    served.add_try("train", {"try": 2, "error": "an old error"}, number=3)
    text = text_of(served)
    assert "an old error" not in text
    assert "train failed on try 3 of 3. That was the last try." in text


def test_of_a_mapped_task_the_first_failed_shard_and_their_number_are_shown(served: Served) -> None:
    for shard, (state, error) in enumerate(
        [
            ("success", None),
            ("up_for_retry", "of the second"),
            ("failed", "of the third"),
            ("failed", "of the fourth"),
        ],
        start=1,
    ):
        content = error and {"try": 3, "error": error}
        served.add_try("predict", content, state=state, shard=shard)
    text = text_of(served)
    assert "predict failed in 3 of 4 shards, first in shard 3 on try 3 of 3." in text
    assert "of the third" in text
    assert "of the second" not in text and "of the fourth" not in text


def test_a_lost_task_has_the_words_of_the_notices_and_airflows_own(served: Served) -> None:
    from lung.notices import LOST

    served.add_try("train", was_lost=True)
    text = text_of(served)
    assert f"{LOST}. Airflow's audit log: Task did not emit heartbeat within time limit" in text
    served.run(RUN, "failed", download="success")
    served.add_try("train")
    text = text_of(served)
    assert f"Unless somebody marked it as failed: {LOST}" in text
    assert "audit log" not in text


def test_a_task_that_never_started_is_not_called_lost(served: Served) -> None:
    served.run(RUN, "failed", download="failed", train="upstream_failed")
    text = text_of(served)
    assert "download failed on try 1 of 1" in text
    assert "It did not start" in text
    assert "process was lost" not in text


@pytest.mark.parametrize(
    "content", ["text", 3, [], {"try": "3", "error": "x"}, {"try": 3, "error": ["secret"]}]
)
def test_an_xcom_that_no_task_wrote_is_not_shown(served: Served, content: Any) -> None:
    served.add_try("train", content)
    text = text_of(served)
    assert "It left no error" in text
    assert "secret" not in text


def test_errors_are_shown_of_our_dags_alone(served: Served) -> None:
    for dag in ("lung_masks", "other"):
        served.run(RUN, "failed", dag=dag)
        served.add_try("inbox", {"try": 3, "error": "the bucket is absent"}, dag=dag)
        for tab in ("", "masks/"):
            answer = served.get(dag=dag, tab=tab)
            assert answer.status_code == 200
            assert ("the bucket is absent" in answer.text) is (dag == "lung_masks")


def test_an_error_is_escaped_and_cut(served: Served) -> None:
    hostile = "<script>alert(1)</script>\x1b[2J\u202e" + "x" * 100_000
    served.add_try("train", {"try": 3, "error": hostile})
    answer = served.get()
    page = Page(answer.content)
    assert "<script>alert(1)</script>" + r"\x1b[2J\u202e" in page.text
    assert "script" not in {tag for tag, _ in page.elements}
    assert len(answer.content) < 20_000


def test_an_error_is_shown_even_where_s3_does_not_answer(served: Served) -> None:
    served.add_try("train", {"try": 3, "error": "S3 does not answer"})
    served.connect(extra={"endpoint_url": "http://127.0.0.1:9"})
    try:
        answer = served.get()
    finally:
        served.connect()
    assert answer.status_code == 503
    text = Page(answer.content).text
    assert "cannot be read" in text
    assert "train failed on try 3 of 3." in text and "S3 does not answer" in text


def test_the_step_after_the_last_epoch_has_its_name_and_its_time(served: Served) -> None:
    served.run(RUN, "running", download="success", train="running")
    served.write_training(4, 4, name="choosing the threshold", done=3, total=11, seconds=60.0)
    page = Page(served.get().content)
    assert "Choosing the threshold" in page.text
    # 20 s for each of the 8 that are left.
    assert "3 of 11 of this step are done. About 3 min to go." in page.text
    (bar,) = (attributes for tag, attributes in page.elements if tag == "progress")
    assert (bar["value"], bar["max"]) == ("3", "11")


@pytest.mark.parametrize(
    "step",
    [
        {"name": "x" * 100, "done": 1, "total": 2, "seconds": 1.0},
        {"name": 3, "done": 1, "total": 2, "seconds": 1.0},
        {"name": "x", "done": 3, "total": 2, "seconds": 1.0},
        {"name": "x", "done": True, "total": 2, "seconds": 1.0},
        {"name": "x", "done": 1, "total": 2, "seconds": -1.0},
        {"name": "x", "done": 1, "total": 2},
        {"name": "x", "done": 1, "total": 2, "seconds": 1.0, "more": 1},
    ],
)
def test_a_step_that_train_did_not_write_is_refused(served: Served, step: dict[str, Any]) -> None:
    served.run(RUN, "running", download="success", train="running")
    served.write_training(4, 4, **step)
    answer = served.get()
    assert answer.status_code == 503
    assert "train.json was not written by train" in answer.text


def test_the_script_that_hides_the_tabs_names_the_dags_of_the_folder(served: Served) -> None:
    headers = {"Authorization": f"Bearer {served.token('admin')}"}
    plugins = served.call("GET", "/api/v2/plugins", headers=headers).json()["plugins"]
    (plugin,) = (entry for entry in plugins if entry["source"].startswith("$PLUGINS_FOLDER"))
    (app,) = plugin["react_apps"]
    assert app["destination"] == "base"
    answer = served.call("GET", "/" + app["bundle_url"])
    assert answer.headers["Content-Type"].startswith("text/javascript")
    assert f"globalThis.{app['name']} =" in answer.text
    for view in plugin["external_views"]:
        assert f'[href$="/plugin/{view["url_route"]}"]' in answer.text
    for dag in ("lung_segmentation", "lung_masks"):
        assert f'[href*="/dags/{dag}/"]' in answer.text
