"""The training report's text in every state of a run."""

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
    ("state", "tasks", "epochs", "title", "text"),
    [
        ("queued", {}, 0, "Training has not begun", "after the first epoch"),
        ("running", {"download": "running"}, 0, "Training has not begun", "Download is running"),
        ("running", {"train": "queued"}, 0, "Training has not begun", "after the first epoch"),
        ("running", {"train": "running"}, 0, "Training has begun", "after the first epoch"),
        ("running", {"train": "running"}, 7, "Epoch 7 of 10", "About 3 min to go"),
        ("running", {"train": "up_for_retry"}, 7, "is retried", "7 of 10 epochs are saved"),
        ("running", {"train": "queued"}, 7, "is retried", "7 of 10 epochs are saved"),
        ("failed", {"train": "failed"}, 0, "before its first epoch ended", "log says why"),
        ("failed", {"train": "failed"}, 7, "failed after epoch 7 of 10", "with epoch 8"),
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
