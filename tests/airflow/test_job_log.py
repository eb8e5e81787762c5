"""The lines of a job in its task's log: their levels, and that no time or level stands twice."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from jobs.cli import set_up_logging
from lung.job_log import JobLog

Log = Callable[..., list[tuple[str, str]]]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Log:
    """Writes lines to a JobLog; returns the (level, message) of each entry of the task's log."""

    def write(*lines: str) -> list[tuple[str, str]]:
        job_log = JobLog(logging.getLogger("task"))
        with caplog.at_level("DEBUG", logger="task"):
            for line in lines:
                job_log.write(line)
        return [(record.levelname, record.getMessage()) for record in caplog.records]

    return write


@pytest.mark.parametrize("level", ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"])
def test_a_record_keeps_its_level_and_starts_with_its_message(log: Log, level: str) -> None:
    line = f"2026-11-23 10:00:00,123 {level} train 5 of 80 epoch 1 loss 0.5000\n"
    assert log(line) == [(level, "train 5 of 80 epoch 1 loss 0.5000")]


def test_a_record_as_the_jobs_print_it_is_recognised(
    log: Log, capsys: pytest.CaptureFixture[str]
) -> None:
    root = logging.getLogger()
    before, root.handlers = root.handlers, []
    try:
        set_up_logging()
        logging.getLogger("jobs").warning("3 films\nhave no mask")
        printed = capsys.readouterr().err
    finally:
        root.handlers = before
    assert log(printed) == [("WARNING", r"3 films\nhave no mask")]


def test_a_line_without_level_is_info_and_an_indented_one_continues_its_record(log: Log) -> None:
    assert log(
        "2026-11-23 10:00:00,123 WARNING the disk is nearly full",
        "  2 GB are free",
        "/torch/x.py:7: UserWarning: lr_scheduler",
        "  warnings.warn(",
        '{"job": "train", "manifest": "s3://lung/x"}',
    ) == [
        ("WARNING", "the disk is nearly full"),
        ("WARNING", "  2 GB are free"),
        ("INFO", "/torch/x.py:7: UserWarning: lr_scheduler"),
        ("INFO", "  warnings.warn("),
        ("INFO", '{"job": "train", "manifest": "s3://lung/x"}'),
    ]


@pytest.mark.parametrize("margin", ["  ", "", "[rank1]: "])
def test_a_traceback_is_an_error_up_to_the_next_record(log: Log, margin: str) -> None:
    traceback = [
        margin + line
        for line in (
            "Traceback (most recent call last):",
            '  File "train.py", line 1, in <module>',
            "ValueError: blank",
            "During handling of the above exception, another exception occurred:",
            "KeyError: 3",
        )
    ]
    entries = log(
        "2026-11-23 10:00:00,123 INFO epoch 1 of 2",
        *traceback,
        "2026-11-23 10:00:01,123 INFO epoch 2 of 2",
        "a library's line",
    )
    assert entries == [
        ("INFO", "epoch 1 of 2"),
        *(("ERROR", line) for line in traceback),
        ("INFO", "epoch 2 of 2"),
        ("INFO", "a library's line"),
    ]


@pytest.mark.parametrize(
    "line",
    [
        "2026-11-23 10:00:00,123 NOTICE text",
        "2026-11-23 10:00:00,123 text",
        "12 34 warning text",
        "x 2026-11-23 10:00:00,123 ERROR text",
    ],
)
def test_a_line_that_only_looks_like_a_record_is_unchanged_and_info(log: Log, line: str) -> None:
    assert log(line) == [("INFO", line)]


def test_the_last_line_has_neither_time_nor_level_nor_control_characters() -> None:
    job_log = JobLog(logging.getLogger("task"))
    assert job_log.last_line == ""
    job_log.write("2026-11-23 10:00:00,123 ERROR BadDataError: a\x1b[2J.png \n")
    job_log.write("\n")
    assert job_log.last_line == r"BadDataError: a\x1b[2J.png"
    job_log.write("  ValueError: blank\n")
    assert job_log.last_line == "ValueError: blank"
