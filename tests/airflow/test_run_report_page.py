"""The training report's text in every state of a run."""

from __future__ import annotations

from typing import Any

import pytest

from lung.run_failures import Try, failures
from lung.run_report_page import Run, Step, progress, words
from tests.support.pages import Page

HOSTILE = "<script>alert(1)</script>"
ROW = {"train_loss": 0.2, "val_loss": 0.3, "val_dice": 0.9, "learning_rate": 1e-3, "seconds": 60.0}


def rows(count: int, **changes: Any) -> list[dict[str, float]]:
    return [{**ROW, "epoch": epoch, **changes} for epoch in range(1, count + 1)]


@pytest.mark.parametrize(
    ("state", "tasks", "epochs", "title", "text"),
    [
        ("queued", {}, 0, "Training has not begun", "after the first epoch"),
        ("running", {"download": "running"}, 0, "Training has not begun", "Download is running"),
        ("running", {"train": "queued"}, 0, "Training has not begun", "after the first epoch"),
        ("running", {"train": "running"}, 0, "Training has begun", "after the first epoch"),
        (
            "running",
            {"train": "running"},
            7,
            "Epoch 7 of 10",
            "3 min to the last epoch's end",
        ),
        ("running", {"train": "up_for_retry"}, 7, "is retried", "7 of 10 epochs are saved"),
        ("running", {"train": "queued"}, 7, "is retried", "7 of 10 epochs are saved"),
        ("running", {"train": "running"}, 10, "The last epoch is trained", "threshold"),
        ("running", {"train": "up_for_retry"}, 0, "is retried", "No epoch is saved"),
        ("running", {"download": "up_for_retry"}, 0, "has not begun", "Download is retried"),
        ("failed", {"train": "failed"}, 0, "before its first epoch ended", "no report"),
        ("failed", {"train": "failed"}, 7, "failed after epoch 7 of 10", "with epoch 8"),
        ("failed", {"train": "failed"}, 10, "after epoch 10 of 10", "chooses the threshold"),
        ("failed", {"download": "failed"}, 0, "Nothing was trained", "download failed"),
        ("running", {"train": "success"}, 10, "Trained for 10 epochs", "after the last task"),
        (
            "running",
            {"train": "success", "predict": "running"},
            10,
            "Trained for 10 epochs",
            "Predict is running",
        ),
        (
            "failed",
            {"train": "success", "predict": "failed", "evaluate": "upstream_failed"},
            10,
            "Trained for 10 epochs",
            "predict failed",
        ),
        ("success", {"train": "success", "publish": "skipped"}, 10, "Trained", "wrote no report"),
    ],
)
def test_the_title_and_the_text_match_the_state(
    state: str, tasks: dict[str, str], epochs: int, title: str, text: str
) -> None:
    page_title, page_text = words(Run("r", state, tasks), rows(epochs), 10)
    assert title in page_title
    assert text in page_text


def test_the_best_epoch_is_the_first_with_the_highest_dice() -> None:
    history = rows(4)
    for row, dice in zip(history, (0.5, 0.8, 0.8, 0.6), strict=True):
        row["val_dice"] = dice
    run = Run("r", "running", {"train": "running"})
    assert "Best validation Dice 0.800 in epoch 2." in words(run, history, 9)[1]
    assert Page(progress(run, history, 9).encode()).text.count("· best") == 1


def test_a_mapped_task_has_the_state_of_its_most_urgent_instance() -> None:
    instances = [
        ("predict", "success"),
        ("predict", "running"),
        ("train", "success"),
        ("publish", None),
    ]
    run = Run.of("r", "running", instances)
    assert run.tasks == {"predict": "running", "train": "success", "publish": "none"}
    assert Run.of("r", "failed", [*instances, ("predict", "failed")]).tasks["predict"] == "failed"


def test_the_table_has_the_last_ten_epochs_newest_first() -> None:
    page = progress(Run("r", "running", {"train": "running"}), rows(25, val_dice=0.0), 40)
    epochs = [line.partition("</th>")[0] for line in page.split('<th scope="row">')[1:]]
    assert [int(epoch.split()[0]) for epoch in epochs] == list(range(25, 15, -1))


def test_html_in_names_is_escaped() -> None:
    page = Page(progress(Run(HOSTILE, "running", {"train": HOSTILE}), [], 0).encode())
    assert HOSTILE in page.text
    assert "script" not in {tag for tag, _ in page.elements}


@pytest.mark.parametrize(
    ("done", "seconds", "text"),
    [
        (0, 0.0, "0 of 11 of this step are done."),
        (1, 6.0, "About 1 min to go."),
        (10, 60.0, "Less than a minute to go."),
        (11, 66.0, "11 of 11 of this step are done."),
    ],
)
def test_the_step_after_the_last_epoch_is_named_with_the_time_that_is_left(
    done: int, seconds: float, text: str
) -> None:
    run = Run("r", "running", {"train": "running"})
    step = Step("choosing the threshold", done, 11, seconds)
    title, words_of_it = words(run, rows(10), 10, step)
    assert title == "Choosing the threshold"
    assert "All epochs are trained." in words_of_it
    assert words_of_it.endswith(text)


def test_before_the_last_epochs_end_a_step_of_an_earlier_try_is_not_shown() -> None:
    run = Run("r", "running", {"train": "running"})
    step = Step("choosing the threshold", 1, 11, 6.0)
    assert words(run, rows(9), 10, step) == words(run, rows(9), 10)
    assert 'max="10"' in progress(run, rows(9), 10, step)


@pytest.mark.parametrize(
    ("tries", "summary"),
    [
        ([Try("train", "failed", 1, 3)], "train failed on try 1 of 3. It is not retried."),
        ([Try("train", "failed", 3, 3)], "train failed on try 3 of 3. That was the last try."),
        (
            [Try("train", "up_for_retry", 1, 3, retry_seconds=54.4)],
            "train failed on try 1 of 3. Try 2 starts in 54 s.",
        ),
        (
            [Try("train", "up_for_retry", 2, 3, retry_seconds=120.0)],
            "train failed on try 2 of 3. Try 3 starts in 2 min.",
        ),
        (
            [Try("train", "up_for_retry", 2, 3, retry_seconds=-3.0)],
            "train failed on try 2 of 3. Try 3 starts now.",
        ),
        (
            [Try("predict", "success", 1, 3, 1), Try("predict", "failed", 3, 3, 2)],
            "predict failed in shard 2 of 2 on try 3 of 3. That was the last try.",
        ),
    ],
)
def test_a_failure_says_which_task_on_which_try_and_whether_it_is_retried(
    tries: list[Try], summary: str
) -> None:
    (failure,) = failures([Try("download", "success"), *tries])
    assert failure.summary == summary
