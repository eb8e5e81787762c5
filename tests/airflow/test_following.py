"""`make dag-run` against an Airflow that hangs, restarts or ends, and a user who stops it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.airflow import airflow_rest, dag_run
from tests.support.fake_airflow import PASSWORD, FakeAirflow, fake_airflow

ROOT = Path(__file__).resolve().parents[2]
OTHER = "manual__2026-11-28T10:00:00+00:00"
AGAIN = "to follow it again: make dag-run RUN_ID="


@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeAirflow]:
    for name in ("RUN_ID", *dag_run.VARIABLES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(airflow_rest, "TIMEOUT", (5, 0.3))
    monkeypatch.setattr(airflow_rest, "PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(dag_run, "POLL_SECONDS", 0.01)
    with fake_airflow() as airflow:
        monkeypatch.setenv("AIRFLOW_URL", airflow.url)
        monkeypatch.setenv("AIRFLOW_PASSWORD", PASSWORD)
        yield airflow


def command() -> int:
    return dag_run.or_exit_code(dag_run.main)


def waits(output: str) -> list[str]:
    line = re.compile(r"^[\d:]{8}  Airflow at \S+ (.*): trying again for 120 s$", re.MULTILINE)
    return line.findall(output)


TROUBLE = {
    "hang": "gives no answer within 0.3 s",
    "close": "breaks the connection",
    "restart": "breaks the connection",
    "503": "answers with 503",
}
# Before its first answer, an Airflow that closes connections is none.
FAULTS = [(path, kind) for path in ("segmentation", "/dagRuns", "/taskI") for kind in TROUBLE]


@pytest.mark.parametrize(("path", "kind"), [*FAULTS, ("token", "hang"), ("token", "503")])
def test_each_request_is_repeated_until_airflow_answers_and_one_line_says_so(
    path: str, kind: str, airflow: FakeAirflow, capsys: pytest.CaptureFixture[str]
) -> None:
    airflow.faults = [(path, kind)]
    assert command() == 0
    assert waits(capsys.readouterr().out) == [TROUBLE[kind]]
    assert len(airflow.runs) == 1 and airflow.faults == []


def test_a_trigger_whose_answer_is_lost_makes_one_run(airflow: FakeAirflow) -> None:
    airflow.faults = [("POST /api", "503"), ("POST /api", "lost")]
    assert command() == 0
    first, second = airflow.triggered
    assert first["dag_run_id"] == second["dag_run_id"]
    assert airflow.runs == {first["dag_run_id"]: "success"}


@pytest.mark.parametrize("kind", ["hang", "die", "503"])
def test_an_airflow_that_stays_away_ends_the_command_with_69_and_how_to_follow_again(
    kind: str,
    airflow: FakeAirflow,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(dag_run, "PATIENCE_SECONDS", 0.4)
    airflow.is_endless = True
    airflow.faults = [("/taskInstances", kind), *[("", kind)] * 50]
    assert command() == 69
    (run_id,) = airflow.runs
    error = capsys.readouterr().err
    assert error.startswith(f"Airflow at {airflow.url} ") and error.count("\n") == 1
    assert error.endswith(f". The run goes on; {AGAIN}{run_id}\n")


def test_an_airflow_that_was_never_there_is_not_waited_for(
    airflow: FakeAirflow, capsys: pytest.CaptureFixture[str]
) -> None:
    airflow.stop()
    assert command() == 69
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(f"no Airflow answers at {airflow.url}: start one with")


def test_a_token_that_has_expired_is_renewed(airflow: FakeAirflow) -> None:
    airflow.faults = [("/taskInstances", "401")]
    assert command() == 0
    assert airflow.logins == 2


def test_run_id_follows_a_run_without_triggering_one(
    airflow: FakeAirflow, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    airflow.runs, airflow.is_paused = {OTHER: "running"}, True
    monkeypatch.setenv("RUN_ID", OTHER)
    assert command() == 0
    assert (airflow.triggered, airflow.patches) == ([], [])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{OTHER} is running, until the DAG is unpaused"
    assert re.fullmatch(r"download +success +1\.5 s", lines[3])


def test_an_unknown_run_id_is_refused_in_one_line(
    airflow: FakeAirflow, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RUN_ID", "manual__never")
    assert command() == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == (
        "RUN_ID=manual__never: lung_segmentation has no such run; without RUN_ID a run is "
        "triggered\n"
    )


def test_params_beside_a_run_id_are_refused(
    airflow: FakeAirflow, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"RUN_ID": OTHER, "SIZE": "64", "NETWORK": "small"}.items():
        monkeypatch.setenv(name, value)
    assert command() == 2
    assert "leave out NETWORK and SIZE, or RUN_ID" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_user_who_stops_the_command_leaves_the_run_and_learns_how_to_follow_it(
    number: signal.Signals, airflow: FakeAirflow
) -> None:
    airflow.is_endless = True
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "scripts.airflow.dag_run"],
        cwd=ROOT,
        env=dict(os.environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout and process.stderr
        assert process.stdout.readline().startswith("manual__")
        assert process.stdout.readline().endswith("  download         running\n")
        process.send_signal(number)
        error = process.stderr.read()
        assert process.wait(30) == 130
    (run_id,) = airflow.runs
    assert error == f"\nThe run goes on; {AGAIN}{run_id}\n"
    assert (airflow.runs, airflow.patches) == ({run_id: "running"}, [])


@pytest.mark.parametrize(
    ("next_run", "words"),
    [
        ("2126-12-01T00:00:00Z", "its next scheduled run is on Sunday 2126-12-01 00:00 UTC"),
        (None, "it has no schedule, runs start when they are triggered"),
        (
            "2026-01-04T00:00:00Z",
            (
                "its scheduled run of Sunday 2026-01-04 00:00 UTC, missed in the pause, starts "
                "now, before this one"
            ),
        ),
    ],
)
def test_the_line_about_a_paused_dag_says_when_the_next_scheduled_run_comes(
    next_run: str | None,
    words: str,
    airflow: FakeAirflow,
    capsys: pytest.CaptureFixture[str],
) -> None:
    airflow.is_paused, airflow.next_run = True, next_run
    assert command() == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first == f"lung_segmentation was paused and is unpaused now: {words}"
    assert [content for _, content in airflow.patches] == [{"is_paused": False}]


def test_a_run_that_waits_for_another_says_for_which(
    airflow: FakeAirflow, capsys: pytest.CaptureFixture[str]
) -> None:
    airflow.runs = {OTHER: "running"}
    assert command() == 0
    assert f"It waits for {OTHER}: one run at a time\n" in capsys.readouterr().out
