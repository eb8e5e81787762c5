"""Whatever ends a task, its job ends within a minute, nothing is left, and the error is right."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.leaks import Jobs, Row, rows, serving

# Airflow takes a minute to start, and another to notice a killed supervisor.
pytestmark = [pytest.mark.airflow, pytest.mark.slow, pytest.mark.timeout(900)]

SECONDS_TO_RUN = 60
STOPPED = "AirflowException: The task was stopped from outside, and its job with it"
# {case: (the task's final state, the error on the page of its first try)}
CASES = {
    "timed_out": ("failed", "AirflowTaskTimeout"),
    "marked_failed": ("failed", STOPPED),
    "cleared": ("success", STOPPED),
    "task_killed": ("failed", "Process terminated by signal"),
    "supervisor_killed": ("failed", "heartbeat"),
    "both_killed": ("failed", "heartbeat"),
    "scheduler_killed": ("success", "The scheduler or worker of this task"),
}


@pytest.fixture(
    scope="module", params=[pytest.param("docker", marks=pytest.mark.engine), "process"]
)
def outcome(request: pytest.FixtureRequest) -> Iterator[tuple[dict[str, Row], Any]]:
    with serving(request.param) as served, Jobs(request.param).watched() as jobs:
        yield {row.case: row for row in rows(served, jobs)}, jobs.most


@pytest.mark.parametrize("case", CASES)
def test_a_job_ends_with_its_task_and_the_error_names_the_cause(case: str, outcome: Any) -> None:
    table, most = outcome
    row: Row = table[case]
    state, error = CASES[case]
    assert row.seconds is not None and row.seconds < SECONDS_TO_RUN
    assert row.left == 0
    assert most[case] == 1, "two of one task ran side by side"
    assert row.state == state
    assert error in row.error
