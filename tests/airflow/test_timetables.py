"""When both DAGs run by the clock, as Airflow's scheduler computes it from the serialised DAGs."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.airflow_tasks import ROOT

pytestmark = [
    pytest.mark.airflow,
    # Raised by Airflow's reader of .airflowignore.
    pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning"),
]

SETTINGS = {"lung_segmentation": "LUNG_SCHEDULE", "lung_masks": "LUNG_MASKS_SCHEDULE"}
# 29 November 2026 is a Sunday. Airflow's own rule runs the last tick at once within a tenth of the
# interval or five minutes: all first moments here are within it.
TICKS = [
    ("@hourly", "2026-11-29T10:04", "2026-11-29T11:00"),
    ("@daily", "2026-11-29T02:00", "2026-11-30T00:00"),
    ("@weekly", "2026-11-29T10:00", "2026-12-06T00:00"),
    ("@weekly", "2026-11-28T23:59", "2026-11-29T00:00"),
    ("@monthly", "2026-11-03T00:00", "2026-12-01T00:00"),
    ("@quarterly", "2026-10-05T00:00", "2027-01-01T00:00"),
    ("@yearly", "2026-01-20T00:00", "2027-01-01T00:00"),
    ("0 3 * * 1", "2026-11-23T09:00", "2026-11-30T03:00"),
    ("*/10 * * * *", "2026-11-29T10:04", "2026-11-29T10:10"),
    ("0 6 1,15 * *", "2026-11-15T08:00", "2026-12-01T06:00"),
]


def serialised(dag: str, schedule: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The DAG with that schedule, as the scheduler reads it from the database."""
    from airflow.dag_processing.dagbag import DagBag
    from airflow.serialization.serialized_objects import DagSerialization

    monkeypatch.setenv(SETTINGS[dag], schedule)
    return DagSerialization.from_dict(DagSerialization.to_dict(DagBag(ROOT / "dags").dags[dag]))


def next_run(dag: Any, now: str, monkeypatch: pytest.MonkeyPatch, last: str = "") -> str | None:
    """Minutes of the next scheduled run at `now`, after a scheduled run at `last` if given."""
    from airflow.sdk.timezone import parse
    from airflow.timetables.base import DagRunInfo

    moment = parse(f"{now}+00:00")
    monkeypatch.setattr("airflow.timetables.trigger.utcnow", lambda: moment)
    last_run = DagRunInfo.exact(parse(f"{last}+00:00")) if last else None
    info = dag.next_dagrun_info(last_automated_run_info=last_run)
    return info.run_after.strftime("%Y-%m-%dT%H:%M") if info else None


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize(("schedule", "now", "tick"), TICKS)
def test_a_dag_that_never_ran_by_its_schedule_waits_for_the_next_tick(
    name: str, schedule: str, now: str, tick: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dag = serialised(name, schedule, monkeypatch)
    assert next_run(dag, now, monkeypatch) == tick


@pytest.mark.parametrize("name", SETTINGS)
def test_the_first_tick_is_kept_where_the_file_is_parsed_again_right_after_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dag = serialised(name, "@weekly", monkeypatch)
    assert next_run(dag, "2026-11-29T00:00:40", monkeypatch) == "2026-11-29T00:00"


@pytest.mark.parametrize("name", SETTINGS)
def test_after_a_scheduled_run_the_next_tick_comes_and_of_several_missed_ones_the_last(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dag = serialised(name, "@weekly", monkeypatch)
    last = "2026-11-08T00:00"
    assert next_run(dag, "2026-11-12T12:00", monkeypatch, last) == "2026-11-15T00:00"
    assert next_run(dag, "2026-12-02T12:00", monkeypatch, last) == "2026-11-29T00:00"


def test_without_a_schedule_the_clock_starts_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    now = "2026-11-29T10:00"
    for name in SETTINGS:
        assert next_run(serialised(name, "never", monkeypatch), now, monkeypatch) is None


@pytest.mark.parametrize("text", ["@once", "@continuous", "weekly", "61 * * * *", "* * *"])
@pytest.mark.parametrize("name", SETTINGS)
def test_a_schedule_of_another_form_is_an_import_error_that_names_the_setting(
    name: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.dag_processing.dagbag import DagBag

    monkeypatch.setenv(SETTINGS[name], text)
    (error,) = DagBag(ROOT / "dags").import_errors.values()
    assert f"ValueError: {SETTINGS[name]} is {text!r}: give a cron expression such as" in error
