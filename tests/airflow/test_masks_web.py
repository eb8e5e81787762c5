"""The masks of real runs in a real browser: 200 films of an inbox, and those of a training's run.

The tests build on one another, in order, on one Airflow. Loading times are printed, not judged.
Under `make images` they save a picture, whose outlines need a model of more epochs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from jobs.storage.s3 import Store
from tests.support.serving import Served, served_airflow

pytestmark = [pytest.mark.airflow, pytest.mark.slow, pytest.mark.timeout(900)]

OUT, INBOX = "s3://lung/pipeline", "s3://lung/inbox"
FILMS = 200
FOR_A_PICTURE = "LUNG_IMAGES" in os.environ
TRAINING = {
    "source": f"synthetic://phantoms?films={FILMS}&seed=0",
    "size": 256 if FOR_A_PICTURE else 128,
    "epochs": 8 if FOR_A_PICTURE else 2,
    "network": "small",
    "batch_size": 8,
    "min_dice": 0.0,  # so that the model becomes the champion
    "starter": False,
}
LOADED = """
const [entry] = performance.getEntriesByType("navigation");
const pictures = [...document.images].filter(image => image.complete && image.naturalWidth > 0);
return [pictures.length, entry.loadEventEnd, entry.encodedBodySize];
"""


@pytest.fixture(scope="module")
def airflow() -> Iterator[Served]:
    settings = {"LUNG_MASKS_SCHEDULE": "never", "LUNG_INBOX": INBOX}
    with served_airflow(environment=settings) as served:
        yield served


@pytest.fixture(scope="module")
def store(airflow: Served) -> Iterator[Store]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in airflow.environment.items():
            if name.startswith("AWS_"):
                patch.setenv(name, value)
        yield Store()


@pytest.fixture(scope="module")
def page(airflow: Served) -> Iterator[Any]:
    from tests.support.web_page import Page, browser

    with browser() as driver:
        page = Page(driver, airflow.url)
        page.open("/dags")
        page.log_in(airflow.user, airflow.password)
        page.find("body", "Dags")
        yield page


@pytest.fixture(scope="module")
def training(airflow: Served) -> str:
    """A finished run of lung_segmentation; its id."""
    run = airflow.trigger("lung_segmentation", TRAINING)
    assert airflow.wait_for_end("lung_segmentation", run, seconds=600) == "success"
    return run


def loaded(page: Any, capsys: pytest.CaptureFixture[str], name: str) -> int:
    """The number of pictures that the masks' page shows; prints how long it took to load."""
    number, milliseconds, size = page.driver.execute_script(LOADED)
    with capsys.disabled():
        print(f"  {name}: {number} pictures, {milliseconds:.0f} ms, {size:,} bytes")
    return int(number)


def test_the_masks_of_predict_are_beside_the_report_of_the_run(
    airflow: Served, page: Any, training: str, capsys: pytest.CaptureFixture[str]
) -> None:
    page.open(f"/dags/lung_segmentation/runs/{training}")
    page.click("a", "Training report")
    with page.inside("iframe"):
        page.find("h2", "How it learned")
    page.click("a", "Masks")
    with page.inside("iframe"):
        page.find("h1", f"{FILMS} masks")
        assert loaded(page, capsys, "predict") == FILMS


def test_the_tab_of_the_inbox_shows_200_masks(
    airflow: Served, store: Store, page: Any, training: str, capsys: pytest.CaptureFixture[str]
) -> None:
    films = [item for item in store.list_objects(f"{OUT}/raw/") if "/films/" in item.uri]
    assert len(films) == FILMS
    store.write_many(
        (f"{INBOX}/ward/{item.uri.rpartition('/')[2]}", store.read_object(item)) for item in films
    )
    store.write(f"{INBOX}/ward/broken.png", b"\x89PNG\r\n\x1a\n" + b"no film")
    store.write(f"{INBOX}/notes.txt", b"no film")
    run = airflow.trigger("lung_masks")
    assert airflow.wait_for_end("lung_masks", run, seconds=400) == "success"
    page.open(f"/dags/lung_masks/runs/{run}")
    page.click("a", "Masks")
    with page.inside("iframe"):
        page.find("h1", f"{FILMS} masks")
        page.find("figure.failed", "broken.png")
        page.find("p", "passed over: text and metadata 1")
        shown = loaded(page, capsys, "inbox")
    page.save_picture("masks-page")
    with page.inside("iframe"):
        page.click(".pager a", "2")
        page.find(".pager a[aria-current]", "2")
        assert shown + loaded(page, capsys, "inbox, page 2") == FILMS
