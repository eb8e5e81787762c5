"""The web page in a real browser: log in, fill in the form, trigger, watch, read the report.

The tests build on one another, in order, on one Airflow. Under `make images` they save pictures.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.support.serving import ROOT, Served, served_airflow

pytestmark = [pytest.mark.airflow, pytest.mark.slow, pytest.mark.timeout(900)]

DAG = "lung_segmentation"
# Values for the form: a picture needs losses that fall, a test needs a short run.
FOR_A_PICTURE = "LUNG_IMAGES" in os.environ
FORM: dict[str, Any] = {
    "source": f"synthetic://phantoms?films={48 if FOR_A_PICTURE else 24}&seed=0",
    "size": 256 if FOR_A_PICTURE else 96,
    "epochs": 16 if FOR_A_PICTURE else 40,
    "batch_size": 4,
}
ADVANCED = {"learning_rate": 0.01}


OTHER_DAG = """
from airflow.sdk import dag, task

@dag
def other():
    @task
    def nothing():
        pass
    nothing()

other()
"""


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Our DAGs beside one of somebody else."""
    folder = tmp_path_factory.mktemp("dags")
    for file in (ROOT / "dags").glob("lung_*.py"):
        (folder / file.name).symlink_to(file)
    (folder / "other.py").write_text(OTHER_DAG)
    # A test looks at the training while it runs: the smaller network of `make airflow` is too fast.
    environment = {} if FOR_A_PICTURE else {"LUNG_FORM_DEFAULTS": '{"network": "base"}'}
    with served_airflow(backend="process", environment=environment, dags=folder) as served:
        yield served


@pytest.fixture(scope="module")
def page(airflow: Served) -> Iterator[Any]:
    from tests.support.web_page import Page, browser

    with browser() as driver:
        yield Page(driver, airflow.url)


@pytest.fixture(scope="module")
def run(airflow: Served, page: Any) -> str:
    """The run that the form started."""
    (run,) = airflow.get(f"/dags/{DAG}/dagRuns")["dag_runs"]
    return str(run["dag_run_id"])


def test_a_wrong_password_is_refused_and_the_right_one_opens_the_dag(
    airflow: Served, page: Any
) -> None:
    page.open(f"/dags/{DAG}")
    page.log_in(airflow.user, "wrong")
    page.find("body", "Invalid credentials")
    page.open(f"/dags/{DAG}")
    page.log_in(airflow.user, airflow.password)
    page.find("[data-testid=trigger-dag-button]")


def test_the_form_shows_the_main_fields_and_its_values_reach_the_run(
    airflow: Served, page: Any
) -> None:
    page.click("[data-testid=trigger-dag-button]")
    for title in ("Source of the films", "Image size", "Epochs", "Batch size", "GPUs"):
        page.find("[role=dialog]", title)
    page.save_picture("form")
    for name, value in FORM.items():
        page.fill(name, value)
    page.click("[role=dialog] button", "Advanced")
    for name, value in ADVANCED.items():
        page.fill(name, value)
    page.click("[role=dialog] button", "Trigger")
    runs = page.until(lambda _: airflow.get(f"/dags/{DAG}/dagRuns")["dag_runs"], "the run")
    conf = runs[0]["conf"]
    assert {name: conf[name] for name in FORM | ADVANCED} == FORM | ADVANCED


def test_the_losses_are_plotted_while_the_training_runs_and_the_page_reloads(
    airflow: Served, page: Any, run: str
) -> None:
    page.open(f"/dags/{DAG}/runs/{run}")
    page.click("a", "Training report")

    def epoch(_: Any) -> int:
        with page.inside("iframe"):
            page.driver.find_element("css selector", "img[src^='data:image/svg+xml']")
            title = page.driver.find_element("css selector", "h1").text
        match = re.fullmatch(rf"Epoch (\d+) of {FORM['epochs']}", title)
        return int(match[1]) if match else 0

    first = page.until(epoch, "the first epoch", 200)
    later = FORM["epochs"] * 3 // 4 if FOR_A_PICTURE else first + 1
    page.until(lambda _: epoch(_) >= later, f"epoch {later}", 300)
    assert airflow.get(f"/dags/{DAG}/dagRuns/{run}/taskInstances/train")["state"] == "running"
    page.save_picture("training")


def test_the_run_succeeds_and_the_tab_shows_its_report(
    airflow: Served, page: Any, run: str
) -> None:
    assert airflow.wait_for_end(DAG, run, seconds=600) == "success"
    page.open(f"/dags/{DAG}/runs/{run}")
    page.find("body", "Success")
    page.save_picture("grid")
    page.click("a", "Training report")
    with page.inside("iframe"):
        page.find("h2", "How it learned")
    page.save_picture("report")


def test_the_tabs_are_shown_on_runs_of_our_dags_alone(airflow: Served, page: Any) -> None:
    tabs = {"report": "training-report", "masks": "lung-masks"}

    def shown(dag: str) -> set[str]:
        run = airflow.trigger(dag)
        page.open(f"/dags/{dag}/runs/{run}")
        script = "return Boolean(globalThis.lung_tab_filter)"
        page.until(lambda driver: driver.execute_script(script), "the script of the tabs")

        def is_shown(route: str) -> bool:
            tab = f"a[href$='/plugin/{route}']"
            find = page.driver.find_elements
            page.until(lambda _: find("css selector", tab), f"the tab {route} of {dag}")
            return bool(page.driver.find_element("css selector", tab).is_displayed())

        return {name for name, route in tabs.items() if is_shown(route)}

    assert shown(DAG) == {"report", "masks"}
    assert shown("lung_masks") == {"masks"}
    assert shown("other") == set()


def test_without_a_log_in_neither_the_tab_nor_the_report_is_shown(
    airflow: Served, run: str
) -> None:
    url = f"{airflow.url}/training-report/dags/{DAG}/runs/{run}"
    assert requests.get(url, timeout=60).status_code == 401
    from tests.support.web_page import Page, browser

    with browser() as stranger:
        page = Page(stranger, airflow.url)
        page.open(f"/dags/{DAG}/runs/{run}/plugin/training-report")
        page.find("[name=password]")
        page.open(f"/training-report/dags/{DAG}/runs/{run}")
        page.find("h1", "Log in first")


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ({"size": 500}, r"size.*500 is not a multiple of 32"),
        ({"epochs": -1}, r"epochs.*-1 is less than the minimum of 0"),
        ({"source": "my films"}, r"source.*does not match"),
    ],
)
def test_a_bad_param_by_rest_is_a_readable_400_and_starts_nothing(
    airflow: Served, params: dict[str, Any], reason: str
) -> None:
    before = airflow.get(f"/dags/{DAG}/dagRuns")["total_entries"]
    answer = airflow.call(
        "POST", f"/dags/{DAG}/dagRuns", json={"logical_date": None, "conf": params}
    )
    assert answer.status_code == 400, answer.text
    assert re.search(reason, answer.json()["detail"]), answer.text
    assert airflow.get(f"/dags/{DAG}/dagRuns")["total_entries"] == before
