"""What the training report says in every state of a run."""

from __future__ import annotations

from typing import Any

import pytest

from lung.run_report_page import Run, progress, words
from tests.support.pages import Page

HOSTILE = "<script>alert(1)</script>"
ROW = {"train_loss": 0.2, "val_loss": 0.3, "val_dice": 0.9, "learning_rate": 1e-3, "seconds": 60.0}


def rows(count: int, **changes: Any) -> list[dict[str, float]]:
    return [{**ROW, "epoch": epoch, **changes} for epoch in range(1, count + 1)]


@pytest.mark.parametrize(
    ("state", "tasks", "done", "title", "text"),
    [
        ("queued", {}, 0, "Training has not begun", "after the first epoch"),
        ("running", {"download": "running"}, 0, "Training has not begun", "Download is running"),
        ("running", {"train": "queued"}, 0, "Training has not begun", "after the first epoch"),
        ("running", {"train": "running"}, 0, "Training has begun", "first epoch is under way"),
        ("running", {"train": "running"}, 7, "Epoch 7 of 10", "About 3 min to go"),
        ("running", {"train": "up_for_retry"}, 7, "tried again", "7 of 10 epochs are kept"),
        ("running", {"train": "queued"}, 7, "tried again", "7 of 10 epochs are kept"),
        ("failed", {"train": "failed"}, 0, "before its first epoch ended", "log says why"),
        ("failed", {"train": "failed"}, 7, "failed after epoch 7 of 10", "with epoch 8"),
        ("failed", {"download": "failed"}, 0, "Nothing was trained", "download failed"),
        ("running", {"train": "success"}, 10, "Trained for 10 epochs", "with the last task"),
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
        ("success", {"train": "success", "publish": "skipped"}, 10, "Trained", "left no report"),
    ],
)
def test_the_words_fit_the_state(
    state: str, tasks: dict[str, str], done: int, title: str, text: str
) -> None:
    said = words(Run("r", state, tasks), rows(done), 10)
    assert title in said[0]
    assert text in said[1]


def test_the_best_epoch_is_the_first_with_the_highest_dice() -> None:
    history = rows(4)
    for row, dice in zip(history, (0.5, 0.8, 0.8, 0.6), strict=True):
        row["val_dice"] = dice
    run = Run("r", "running", {"train": "running"})
    assert "Best validation Dice 0.800 in epoch 2." in words(run, history, 9)[1]
    assert Page(progress(run, history, 9).encode()).text.count("· best") == 1


def test_a_mapped_task_is_as_well_as_the_part_that_needs_most_care() -> None:
    parts = [
        ("predict", "success"),
        ("predict", "running"),
        ("train", "success"),
        ("publish", None),
    ]
    run = Run.of("r", "running", parts)
    assert run.tasks == {"predict": "running", "train": "success", "publish": "none"}
    assert Run.of("r", "failed", [*parts, ("predict", "failed")]).tasks["predict"] == "failed"


def test_only_the_last_ten_epochs_stand_in_the_table_the_newest_first() -> None:
    page = progress(Run("r", "running", {"train": "running"}), rows(25, val_dice=0.0), 40)
    shown = [line.partition("</th>")[0] for line in page.split('<th scope="row">')[1:]]
    assert [int(epoch.split()[0]) for epoch in shown] == list(range(25, 15, -1))


def test_names_are_shown_and_never_obeyed() -> None:
    page = Page(progress(Run(HOSTILE, "running", {"train": HOSTILE}), [], 0).encode())
    assert HOSTILE in page.text
    assert "script" not in {tag for tag, _ in page.elements}
